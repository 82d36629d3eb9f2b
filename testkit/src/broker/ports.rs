//! Free ports for processes that have to know theirs before they start.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range from which Linux takes ports for outgoing connections, so that none of those is in the way.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

/// How many ports this process has handed out. Only its own value matters, not its order with anything else.
static HANDED_OUT: AtomicU16 = AtomicU16::new(0);

/// A port on 127.0.0.1 that nobody listens on, different at each call.
///
/// # Panics
///
/// If none is free.
#[must_use]
pub fn free_port() -> u16 {
    // Processes that test side by side begin at different places.
    let start = u16::try_from(std::process::id() % 97).unwrap_or_default() * 100;
    for _ in 0..COUNT {
        let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port is free between {FIRST} and {}", FIRST + COUNT);
}
