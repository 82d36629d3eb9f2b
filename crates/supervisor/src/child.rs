//! The handle of one child.
//!
//! The handle owns nothing of the process: the process belongs to the task in [`watch`](crate::watch). The
//! handle asks that task to stop and learns from it how it ended, so that any number of callers may do either
//! at any time.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::io::ChildIo;
use crate::stderr::Tail;

/// A running or ended child. Dropping it stops the child as [`stop`](Self::stop) does, without waiting.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// Full until it is taken.
    io: Mutex<Option<ChildIo>>,
    tail: Tail,
    life: Life,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did. Without code and signal the status is unknown.
    pub signal: Option<i32>,
    /// From its start until it ended.
    pub lived: Duration,
    /// Whether it was asked to end, by whichever way, before it did.
    pub requested: bool,
}

/// What the handle and the watching task say to each other.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// Cancelled to ask for the stop.
    pub(crate) stop: CancellationToken,
    /// Cancelled by the watching task when it ends, after `exit` was set.
    pub(crate) done: CancellationToken,
    /// Set once, by the watching task. Stays empty if the runtime dropped that task.
    pub(crate) exit: Arc<OnceLock<Exit>>,
}

impl Child {
    pub(crate) fn new(pid: u32, io: ChildIo, tail: Tail, life: Life) -> Self {
        Self {
            pid,
            io: Mutex::new(Some(io)),
            tail,
            life,
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

    /// A token that fires once the child has been reaped, its group is gone, and its last words on standard
    /// error have been read, whatever the cause. Cancelling the token has no effect on the child.
    pub fn done(&self) -> CancellationToken {
        self.life.done.child_token()
    }

    /// How the child ended; there once [`done`](Self::done) has fired, unless the runtime was shut down first.
    pub fn exit(&self) -> Option<Exit> {
        self.life.exit.get().copied()
    }

    /// Stops the child and returns when its whole process group is gone: its stdin is closed, SIGTERM goes to
    /// the group, and after the configured grace SIGKILL.
    ///
    /// Idempotent, for any number of callers at once. Cancel safe: dropping the future does not take the
    /// request back. A process that hangs in the kernel, which not even SIGKILL ends, keeps callers waiting;
    /// whoever has a deadline sets it around this call.
    pub async fn stop(&self) {
        self.life.stop.cancel();
        self.life.done.cancelled().await;
    }

    /// The last lines, 20 at most, that the child wrote to its standard error, oldest first, redacted. For
    /// the operator's log, not for clients.
    pub fn last_stderr(&self) -> Vec<String> {
        self.tail.lines()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.life.stop.cancel();
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => write!(f, "ended by signal {signal}"),
            (None, None) => f.write_str("ended with unknown status"),
        }
    }
}
