//! The listening socket: the one that the broker was started with, or else one of its own.
//!
//! A service manager that holds the socket (systemd's socket activation: `LISTEN_FDS`, `LISTEN_PID`) keeps it open while the
//! broker restarts, so that connections wait for the next broker instead of being refused. The socket is closed on exec,
//! so no child gets it. Only the first one that was passed is used.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The socket to accept from. It must be called once, early: inherited descriptors are taken.
pub(super) async fn listener(address: SocketAddr) -> Result<TcpListener> {
    let inherited = ListenFd::from_env().take_tcp_listener(0);
    match inherited.context("the socket that the broker was started with is of no use")? {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tracing::info!(address = %listener.local_addr()?, "listening on the socket that the broker was started with");
            Ok(listener)
        }
        None => {
            let listener = TcpListener::bind(address).await;
            listener.with_context(|| format!("{address} cannot be listened on"))
        }
    }
}
