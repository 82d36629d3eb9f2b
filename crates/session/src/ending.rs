//! The end of a session, and its sleep: the only places where one leaves the table or gives up its backend at will.

use std::{sync::Arc, time::SystemTime};

use tokio::time::Instant;

use crate::{
    journal,
    life::Was,
    ports::{Change, DetachReason, EndReason, Event, SessionKey},
    registry::Shared,
    seat::{Inner, Session},
};

/// What has to be true of a session for it to be ended, asked under its lock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shut {
    /// Nothing.
    Whatever,
    /// It sleeps, nothing waits for it, and it holds nothing but its slot.
    Dormant,
    /// Nothing has happened on it for this long, and nothing is in flight.
    IdleFor(std::time::Duration),
}

impl Shut {
    fn allows(self, session: &Session, inner: &Inner) -> bool {
        let idle = inner.life.idle(Instant::now());
        match self {
            Self::Whatever => true,
            Self::Dormant => {
                // One that is still being left by its last backend would not give its slot back at once.
                let free = inner.hold.as_ref().is_some_and(|hold| Arc::strong_count(hold) == 1);
                idle.is_some() && free && inner.flight.is_none() && session.seat().is_none()
            }
            Self::IdleFor(time) => idle.is_some_and(|idle| idle >= time),
        }
    }
}

impl Shared {
    /// Ends a session. False if it has ended before, or must not be.
    pub(crate) fn end(&self, session: &Session, why: EndReason, only: Shut) -> bool {
        // Asked before the lock is taken: neither is ours.
        let (now, shared) = (self.clock.now(), self.journal.is_shared());
        let (was, hold) = {
            let mut inner = session.inner();
            if !only.allows(session, &inner) {
                return false;
            }
            let (used, borrowed) = (inner.life.last_activity(), inner.is_as_loaded());
            let Some(was) = inner.life.end() else { return false };
            inner.ending = Some(why);
            session.put_seat(&mut inner, None);
            if was == Was::Live {
                let used = used.map_or(now, |used| journal::wall(now, used));
                // Under the lock, so that whoever finds the session ended finds its ending told.
                if let Some(ending) = ending(session.key, why, now, used, borrowed && shared) {
                    self.journal.end(ending);
                }
            }
            (was, inner.hold.take())
        };
        // An id that nobody was given cannot come back, and must not push out one that can.
        self.table.remove(&session.key, was == Was::Live);
        self.looks().cancel(&session.key);
        self.rotations().cancel(&session.key);
        session.ended.cancel();
        session.woken.notify_waiters();
        self.observer.on(Event::Ended(why));
        session
            .span
            .in_scope(|| tracing::info!(session = %session.tag, reason = ?why, "session ended"));
        drop(hold);
        true
    }

    /// Puts a session to sleep if nothing has happened on it for long enough: its backend goes, it stays. Ends it if nothing
    /// of it is retained.
    pub(crate) fn sleep(&self, session: &Arc<Session>) {
        let timeout = self.config.idle_timeout;
        let Some(seat) = session.seat() else { return };
        let snapshot = seat.backend.snapshot();
        if self.config.retain.is_zero() || snapshot.is_none() {
            self.end(session, EndReason::Idle, Shut::IdleFor(timeout));
            return;
        }
        {
            let mut inner = session.inner();
            // Asked again under the lock: an exchange may have begun, and then the snapshot may be old.
            let idle = inner.life.idle(Instant::now()).is_some_and(|idle| idle >= timeout);
            if !idle || !session.is_seated(&seat) {
                return;
            }
            inner.snapshot = snapshot;
            session.put_seat(&mut inner, None);
        }
        session
            .span
            .in_scope(|| tracing::info!(session = %session.tag, "the session sleeps"));
        self.observer.on(Event::Detached(DetachReason::Idle));
        self.mark_dirty(session);
        self.plan_sleep(session);
    }
}

/// What the records are told of an end. What is `borrowed` is in the table as another registry has written it down, which may
/// be serving it: here its place may be needed, and it may be of no use; what it is there is not for this one to say.
pub(crate) fn ending(
    key: SessionKey,
    why: EndReason,
    at: SystemTime,
    used: SystemTime,
    borrowed: bool,
) -> Option<Change> {
    match why {
        EndReason::Deleted | EndReason::Revoked => Some(Change::End(key, at)),
        EndReason::Evicted | EndReason::Unrevivable if borrowed => None,
        EndReason::Evicted
        | EndReason::Unrevivable
        | EndReason::Idle
        | EndReason::BackendDied
        | EndReason::Expired
        | EndReason::NotOpened => Some(Change::ExpireIfUnused {
            key,
            at,
            last_activity: used,
        }),
        EndReason::Shutdown => None,
    }
}
