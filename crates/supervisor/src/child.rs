//! The handle of one child.
//!
//! The handle does not own the process: the task in [`child_task`](crate::child_task) does. The
//! handle requests the stop and reads the exit, so any number of callers may do either at any time.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::ReadyError;
use crate::exit::Exit;
use crate::io::ChildIo;
use crate::stderr::StderrTail;

/// Maximum time between the failure of a child's streams and its exit for both to count as one
/// event.
const EXIT_GRACE: Duration = Duration::from_millis(500);

/// A running or ended child. Dropping it stops the child as [`stop`](Self::stop) does, without
/// waiting.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// `None` once taken.
    io: Mutex<Option<ChildIo>>,
    tail: StderrTail,
    state: ChildState,
}

/// The state that the handle and the child's task share.
#[derive(Clone, Debug)]
pub(crate) struct ChildState {
    /// Cancelled to request the stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the child's task when it ends, after `exit` was set.
    pub(crate) done: CancellationToken,
    /// Set once, by the child's task. Stays empty if the runtime dropped that task.
    pub(crate) exit: Arc<OnceLock<Exit>>,
    pub(crate) spawned_at: Instant,
    pub(crate) start_timeout: Duration,
}

impl Child {
    pub(crate) fn new(pid: u32, io: ChildIo, tail: StderrTail, state: ChildState) -> Self {
        Self {
            pid,
            io: Mutex::new(Some(io)),
            tail,
            state,
        }
    }

    /// The process id, for logs. Another process may have it once [`done`](Self::done) has fired.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The child's stdin and stdout. Only the first call returns them.
    pub fn take_io(&self) -> Option<ChildIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for `handshake`, which the caller performs over the child's streams, until the child
    /// ends or [`Config::start_timeout`](crate::Config::start_timeout) has passed since the spawn.
    ///
    /// Never stops the child. Cancel safe if `handshake` is.
    ///
    /// # Errors
    ///
    /// [`ReadyError::Exited`] if the child ended, even if its streams showed that first;
    /// [`ReadyError::TooSlow`]; [`ReadyError::Failed`] if the handshake failed and the child lives.
    pub async fn ready<T, E>(&self, handshake: impl Future<Output = Result<T, E>>) -> Result<T, ReadyError<E>> {
        let exited = || {
            // Empty only if the runtime is shutting down.
            let exit = self
                .exit()
                .unwrap_or_else(|| Exit::new(None, self.state.spawned_at.elapsed(), false));
            let stderr = self.last_stderr();
            ReadyError::Exited { exit, stderr }
        };
        tokio::select! {
            biased;
            result = handshake => match result {
                Ok(value) => Ok(value),
                Err(error) => match timeout(EXIT_GRACE, self.state.done.cancelled()).await {
                    Ok(()) => Err(exited()),
                    Err(_) => Err(ReadyError::Failed(error)),
                },
            },
            () = self.state.done.cancelled() => Err(exited()),
            () = sleep_until(self.state.spawned_at + self.state.start_timeout) => {
                Err(ReadyError::TooSlow { limit: self.state.start_timeout, stderr: self.last_stderr() })
            }
        }
    }

    /// A token that fires once the child is reaped, its descendants are gone, its standard error is
    /// read to the end, and its directory is removed, whatever the cause. Cancelling the token does
    /// not affect the child.
    pub fn done(&self) -> CancellationToken {
        self.state.done.child_token()
    }

    /// The exit of the child. Available once [`done`](Self::done) has fired, unless the runtime was
    /// shut down first.
    pub fn exit(&self) -> Option<Exit> {
        self.state.exit.get().copied()
    }

    /// Stops the child and returns when it and all its descendants are gone. It closes stdin, sends
    /// SIGTERM to the group, and SIGKILL after the configured grace period; processes that left the
    /// group get SIGKILL when the child has ended.
    ///
    /// Idempotent, for any number of concurrent callers. Cancel safe: dropping the future does not
    /// withdraw the request. A process that hangs in the kernel survives even SIGKILL and keeps
    /// callers waiting; a caller with a deadline sets it around this call.
    pub async fn stop(&self) {
        self.state.stop.cancel();
        self.state.done.cancelled().await;
    }

    /// The last 20 lines, oldest first, that the child wrote to its standard error, redacted. For
    /// the operator's log, not for clients.
    pub fn last_stderr(&self) -> Vec<String> {
        self.tail.lines()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.state.stop.cancel();
    }
}
