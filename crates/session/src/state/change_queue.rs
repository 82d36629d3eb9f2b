//! The queue of changes for the durable records, filled by exchanges and emptied by the
//! write-behind task.

use std::{mem, sync::atomic::Ordering, time::SystemTime};

use tokio::{sync::Notify, time::Instant};

use super::session::Session;
use crate::{
    ports::{Change, EndReason, SessionKey},
    sync::{Mutex, lock},
};

#[derive(Debug)]
pub(crate) struct ChangeQueue {
    /// Without records nothing is queued.
    enabled: bool,
    pending: Mutex<Pending>,
    /// Notified when something is pending.
    pub(crate) filled: Notify,
}

/// The changes since the last batch.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Sessions of which something has changed.
    pub(crate) changed: Vec<SessionKey>,
    /// Changes that are complete: ends of sessions, and the last changes of all sessions on
    /// closing.
    pub(crate) complete: Vec<Change>,
}

impl ChangeQueue {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            pending: Mutex::default(),
            filled: Notify::new(),
        }
    }

    /// Queues a session of which something has changed that its record may have to show.
    pub(crate) fn mark_changed(&self, session: &Session) {
        // Only the first change since the last batch takes the lock of the queue.
        if self.enabled
            && !session.queued_for_write.load(Ordering::Relaxed)
            && !session.queued_for_write.swap(true, Ordering::AcqRel)
        {
            lock(&self.pending).changed.push(session.key);
            self.filled.notify_one();
        }
    }

    pub(crate) fn push(&self, changes: impl IntoIterator<Item = Change>) {
        if self.enabled {
            lock(&self.pending).complete.extend(changes);
            self.filled.notify_one();
        }
    }

    /// Queues changes that are older than those in the queue.
    pub(crate) fn push_first(&self, changes: Vec<Change>) {
        if self.enabled {
            lock(&self.pending).complete.splice(..0, changes);
            self.filled.notify_one();
        }
    }

    pub(crate) fn take(&self) -> Pending {
        mem::take(&mut *lock(&self.pending))
    }
}

/// The change that the end of a session is for its record. A `borrowed` session is as another
/// registry has written it down, which may be serving it: such a one is not ended in the records
/// because there was no room for it here, or no way to revive it.
pub(crate) fn end_change(
    key: SessionKey,
    implicit: bool,
    reason: EndReason,
    at: SystemTime,
    last_activity: SystemTime,
    borrowed: bool,
) -> Option<Change> {
    let unless_used = match reason {
        EndReason::Shutdown => return None,
        EndReason::Evicted | EndReason::Unrevivable if borrowed => return None,
        EndReason::Deleted | EndReason::Revoked => None,
        EndReason::Evicted
        | EndReason::Unrevivable
        | EndReason::Idle
        | EndReason::BackendDied
        | EndReason::Expired
        | EndReason::NotOpened => Some(last_activity),
    };
    Some(match unless_used {
        last_activity if implicit => Change::Forget { key, last_activity },
        Some(last_activity) => Change::ExpireIfUnused { key, at, last_activity },
        None => Change::End(key, at),
    })
}

/// A past moment on the wall clock that shows `now`.
pub(crate) fn wall_time(now: SystemTime, moment: Instant) -> SystemTime {
    let ago = Instant::now().saturating_duration_since(moment);
    now.checked_sub(ago).unwrap_or(now)
}
