//! SIGTERM and SIGINT stop the broker; a second signal has no effect, since the stop has its own
//! deadline.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A token that the first signal cancels. The handlers are installed when the call returns.
pub(super) fn shutdown(tasks: &TaskTracker) -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tasks.spawn(shutdown.clone().run_until_cancelled_owned(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "shutting down");
        token.cancel();
    }));
    Ok(shutdown)
}
