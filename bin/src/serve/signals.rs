//! SIGTERM and SIGINT ask the broker to stop; a second one changes nothing, since the stop has a deadline of its own.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A token that is cancelled by the first signal. The handlers are in place when the call returns.
///
/// # Errors
///
/// If the system refuses a handler.
pub(super) fn shutdown(tasks: &TaskTracker) -> io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let asked = CancellationToken::new();
    let token = asked.clone();
    tasks.spawn(token.clone().run_until_cancelled_owned(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "stopping");
        asked.cancel();
    }));
    Ok(token)
}
