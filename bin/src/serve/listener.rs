//! The listening socket: inherited from a service manager, or bound here.
//!
//! A service manager (systemd's socket activation: `LISTEN_FDS`, `LISTEN_PID`) keeps its socket
//! open while the broker restarts, so that connections wait for the next broker instead of being
//! refused. The socket is closed on exec, so no child inherits it. Only the first inherited socket
//! is used.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use listenfd::ListenFd;
use tokio::net::TcpListener;

/// The socket to accept from. Call it once, and early: it takes inherited descriptors.
pub(super) async fn listener(address: SocketAddr) -> Result<TcpListener> {
    let inherited = ListenFd::from_env().take_tcp_listener(0);
    match inherited.context("cannot use the inherited socket")? {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tracing::info!(address = %listener.local_addr()?, "listening on the inherited socket");
            Ok(listener)
        }
        None => {
            let listener = TcpListener::bind(address).await;
            listener.with_context(|| format!("cannot listen on {address}"))
        }
    }
}
