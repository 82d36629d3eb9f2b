//! The accept loop: takes connections while there is room, and outlives what can go wrong with one.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{app_state::AppState, connection};

/// How long to wait when the system is out of descriptors or memory: only time helps.
const EXHAUSTED_RETRY_DELAY: Duration = Duration::from_millis(200);

/// What an error of `accept` means.
#[derive(Debug, PartialEq, Eq)]
enum AcceptFailure {
    /// The peer was gone before it was accepted.
    PeerGone,
    /// The system has no room now.
    Exhausted,
    /// The socket is no listener any more.
    Broken,
}

/// Accepts until `face` drains.
///
/// # Errors
///
/// The socket cannot be accepted from any more.
pub(crate) async fn accept(listener: &TcpListener, state: &Arc<AppState>, cut: &CancellationToken) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(state.config.limits.connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = state.draining.cancelled() => return Ok(()),
            // Room first: what cannot be served waits in the system's queue, which is bounded as well.
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                listener.accept().await.map(|(stream, _peer)| (stream, permit))
            } => accepted,
        };
        let (stream, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => match verdict(&error) {
                AcceptFailure::PeerGone => continue,
                AcceptFailure::Exhausted => {
                    tracing::warn!(%error, "no connection can be accepted now");
                    sleep(EXHAUSTED_RETRY_DELAY).await;
                    continue;
                }
                AcceptFailure::Broken => return Err(error),
            },
        };
        if let Err(error) = stream.set_nodelay(true) {
            // Only slower: events would wait to be sent together.
            tracing::debug!(%error, "no delay cannot be set");
        }
        let connection = connection::run(stream, Arc::clone(state), cut.clone());
        state.tasks.spawn(async move {
            connection.await;
            drop(permit);
        });
    }
}

fn verdict(error: &io::Error) -> AcceptFailure {
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
            assert_eq!(verdict(&io::Error::from_raw_os_error(errno)), expected, "{errno}");
        }
    }
}
