//! The server's side: one link for each server of a conversation.
//!
//! A link carries lines of JSON-RPC. Those for the server wait in its `outbox`, those of the server
//! go through its `inbox`; `unreadable_line` finds out which call a broken line has answered. Over
//! a byte stream, `framing` cuts the lines, and `task` reads and writes them; between the two and
//! the machine, `translation` speaks 2026-07-28 with a server that knows only that era, by
//! `modern_server`. `http` sends each line as a request. `era`
//! finds out which era a server speaks. A link knows nothing of clients.

pub(crate) mod era;
pub(crate) mod framing;
#[cfg(feature = "http")]
pub mod http;
pub(crate) mod inbox;
pub(crate) mod modern_server;
pub(crate) mod outbox;
pub(crate) mod task;
pub(crate) mod translation;
pub(crate) mod unreadable_line;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::inbox::Inbox;

/// The connection of a conversation to one of its servers.
///
/// Dropping it closes the connection like [`close`](Self::close), without waiting.
pub struct Link {
    pub(crate) tasks: TaskTracker,
    pub(crate) done: CancellationToken,
    pub(crate) closing: DropGuard,
    pub(crate) answered: Arc<AtomicBool>,
    pub(crate) era_refused: Arc<AtomicBool>,
}

/// The link as its task has it. Dropping it ends the link, also after a panic or when the runtime
/// shuts down: it settles everything on the link, and then cancels `done`.
#[derive(Debug)]
pub(crate) struct LinkTask {
    pub(crate) inbox: Inbox,
    /// Lines wait for the server.
    pub(crate) output: Arc<Notify>,
    /// Ends the task from outside.
    pub(crate) closing: CancellationToken,
    /// Cancelled by the task at its end.
    pub(crate) done: CancellationToken,
}

impl Link {
    /// A token that is cancelled when either side has ended the connection. By then the io is
    /// dropped, and everything that was in flight on the link is settled. Cancelling the token has
    /// no effect on the link.
    #[must_use]
    pub fn done(&self) -> CancellationToken {
        self.done.clone()
    }

    /// True if the server has answered a request of the client.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// True if the server was connected as one of an [era](crate::ServerEra) and has turned out to
    /// be of another one.
    #[must_use]
    pub fn has_refused_era(&self) -> bool {
        self.era_refused.load(Ordering::Relaxed)
    }

    /// Ends the connection: stops writing, drops the io, and settles everything that is in flight
    /// on the link.
    ///
    /// Returns when that is done. Idempotent, for any number of concurrent callers. Dropping the
    /// future does not undo the close.
    pub async fn close(&self) {
        self.closing.token().cancel();
        self.tasks.wait().await;
    }
}

impl Drop for LinkTask {
    fn drop(&mut self) {
        let Inbox { number, shared, .. } = &self.inbox;
        shared.step(|machine| machine.end_link(Instant::now(), *number));
        self.done.cancel();
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("done", &self.done.is_cancelled())
            .finish_non_exhaustive()
    }
}
