//! The handle of one child.
//!
//! The handle owns nothing of the process: the process belongs to the task in [`watch`](crate::child_task). The
//! handle asks that task to stop and learns from it how it ended, so that any number of callers may do either
//! at any time.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::ReadyError;
use crate::exit::Exit;
use crate::io::ChildIo;
use crate::stderr::StderrTail;

/// A running or ended child. Dropping it stops the child as [`stop`](Self::stop) does, without waiting.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// Full until it is taken.
    io: Mutex<Option<ChildIo>>,
    tail: StderrTail,
    state: ChildState,
}

/// What the handle and the watching task write_line to each other.
#[derive(Clone, Debug)]
pub(crate) struct ChildState {
    /// Cancelled to ask for the stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the watching task when it ends, after `exit` was set.
    pub(crate) done: CancellationToken,
    /// Set once, by the watching task. Stays empty if the runtime dropped that task.
    pub(crate) exit: Arc<OnceLock<Exit>>,
    pub(crate) spawned_at: Instant,
    pub(crate) start_timeout: Duration,
}

/// How long a child whose streams failed may take to be gone, to be reported as the one that ended.
const EXIT_GRACE: Duration = Duration::from_millis(500);

impl Child {
    pub(crate) fn new(pid: u32, io: ChildIo, tail: StderrTail, state: ChildState) -> Self {
        Self {
            pid,
            io: Mutex::new(Some(io)),
            tail,
            state,
        }
    }

    /// The process id, for logs. It may be another process's once [`done`](Self::done) has fired.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The child's stdin and stdout. Only the first call gets them.
    pub fn take_io(&self) -> Option<ChildIo> {
        self.io.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until `handshake` is through, which the caller does over the child's streams, for as long as the
    /// child lives and until [`Config::start_timeout`](crate::Config::start_timeout) after it was ordered.
    ///
    /// The child is not stopped here, whatever happens. Cancel safe if `handshake` is.
    ///
    /// # Errors
    ///
    /// [`ReadyError::Exited`] if the child ended instead, also if that showed first by its streams;
    /// [`ReadyError::TooSlow`]; [`ReadyError::Failed`] if the handshake failed and the child lives on.
    pub async fn ready<T, E>(&self, handshake: impl Future<Output = Result<T, E>>) -> Result<T, ReadyError<E>> {
        let ended = || {
            // Empty only if the runtime is shutting down.
            let exit = self
                .exit()
                .unwrap_or_else(|| Exit::unknown(self.state.spawned_at.elapsed()));
            let stderr = self.last_stderr();
            ReadyError::Exited { exit, stderr }
        };
        tokio::select! {
            biased;
            result = handshake => match result {
                Ok(value) => Ok(value),
                Err(error) => match timeout(EXIT_GRACE, self.state.done.cancelled()).await {
                    Ok(()) => Err(ended()),
                    Err(_) => Err(ReadyError::Failed(error)),
                },
            },
            () = self.state.done.cancelled() => Err(ended()),
            () = sleep_until(self.state.spawned_at + self.state.start_timeout) => {
                Err(ReadyError::TooSlow { limit: self.state.start_timeout, stderr: self.last_stderr() })
            }
        }
    }

    /// A token that fires once the child has been reaped, all that it started is gone, its last words on
    /// standard error have been read, and its directory has been removed, whatever the cause. Cancelling the
    /// token has no effect on the child.
    pub fn done(&self) -> CancellationToken {
        self.state.done.child_token()
    }

    /// How the child ended; there once [`done`](Self::done) has fired, unless the runtime was shut down first.
    pub fn exit(&self) -> Option<Exit> {
        self.state.exit.get().copied()
    }

    /// Stops the child and returns when it and all that it started are gone: its stdin is closed, SIGTERM goes
    /// to its group, and after the configured grace SIGKILL; what left the group gets SIGKILL when the child has
    /// ended.
    ///
    /// Idempotent, for any number of callers at once. Cancel safe: dropping the future does not take the
    /// request back. A process that hangs in the kernel, which not even SIGKILL ends, keeps callers waiting;
    /// whoever has a deadline sets it around this call.
    pub async fn stop(&self) {
        self.state.stop.cancel();
        self.state.done.cancelled().await;
    }

    /// The last lines, 20 at most, that the child wrote to its standard error, oldest first, redacted. For
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
