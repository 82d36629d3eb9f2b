//! The accept loop: makes room for new connections at the limit, and survives transient errors.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{app_state::AppState, connection, connection_table::ConnectionTable};

/// Delay before the next accept if the system is out of descriptors or memory.
const EXHAUSTED_RETRY_DELAY: Duration = Duration::from_millis(200);

/// The kinds of errors of `accept`.
#[derive(Debug, PartialEq, Eq)]
enum AcceptFailure {
    /// The peer was gone before the connection was accepted.
    PeerGone,
    /// The system is out of resources for now.
    Exhausted,
    /// The socket no longer listens.
    Broken,
}

/// Accepts connections until the drain begins.
///
/// # Errors
///
/// If the socket is broken.
pub(crate) async fn accept(listener: &TcpListener, state: &Arc<AppState>, cut: &CancellationToken) -> io::Result<()> {
    let table = ConnectionTable::new(state.config.limits.connections);
    loop {
        let accepted = tokio::select! {
            biased;
            () = state.draining.cancelled() => return Ok(()),
            // Wait for room first: connections beyond it wait in the system's queue, which is
            // bounded as well.
            accepted = async {
                table.room().await;
                listener.accept().await
            } => accepted,
        };
        let (stream, _peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => match classify(&error) {
                AcceptFailure::PeerGone => continue,
                AcceptFailure::Exhausted => {
                    tracing::warn!(%error, "cannot accept connections for now; retrying");
                    // The limit of the system may be lower than that of the configuration.
                    table.evict_oldest();
                    sleep(EXHAUSTED_RETRY_DELAY).await;
                    continue;
                }
                AcceptFailure::Broken => return Err(error),
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            // Harmless: the kernel only delays small writes to combine them.
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let slot = table.insert(Instant::now());
        state
            .tasks
            .spawn(connection::run(stream, slot, Arc::clone(state), cut.clone()));
    }
}

fn classify(error: &io::Error) -> AcceptFailure {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted, InvalidInput};
    let kind = error.kind();
    if [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&kind) {
        AcceptFailure::PeerGone
    } else if kind == InvalidInput {
        AcceptFailure::Broken
    } else {
        AcceptFailure::Exhausted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_broken_socket_ends_the_loop() {
        for (errno, expected) in [
            (103, AcceptFailure::PeerGone),  // ECONNABORTED
            (4, AcceptFailure::PeerGone),    // EINTR
            (24, AcceptFailure::Exhausted),  // EMFILE
            (23, AcceptFailure::Exhausted),  // ENFILE
            (12, AcceptFailure::Exhausted),  // ENOMEM
            (105, AcceptFailure::Exhausted), // ENOBUFS
            (22, AcceptFailure::Broken),     // EINVAL
        ] {
            assert_eq!(classify(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
