//! The state of a registry, and the only functions that take a backend from a session or end a session.

use std::{sync::Arc, time::SystemTime};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    attached_backend::AttachedBackend,
    change_queue::{ChangeQueue, end_change, wall_time},
    deadlines::Deadlines,
    phase::{Detached, EndCondition, PreviousPhase},
    quota::{Quota, Reservation},
    renewal_gate::RenewalGate,
    revocations::{Revocations, RevokedSubject},
    session::{Locked, Session},
    table::SessionTable,
};
use crate::{
    config::Config,
    ports::{Clock, DetachReason, EndReason, Event, Observer, Records, Spawner, UserId},
    sync::Tasks,
};

#[derive(Debug)]
pub(crate) struct RegistryState {
    pub(crate) config: Config,
    pub(crate) spawner: Arc<dyn Spawner>,
    pub(crate) records: Option<Arc<dyn Records>>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) table: SessionTable,
    pub(crate) quota: Arc<Quota>,
    pub(crate) changes: ChangeQueue,
    pub(crate) revocations: Revocations,
    pub(crate) renewal_gate: RenewalGate,
    /// When the reaper checks which session.
    pub(crate) reap_deadlines: Deadlines,
    /// When the rotator replaces the backend of which session.
    pub(crate) rotation_deadlines: Deadlines,
    /// Wakes the rotator before its next round.
    pub(crate) rotate_now: Notify,
    /// The tasks of backends, revivals and rotations, and the periodic ones.
    pub(crate) tasks: Tasks,
    /// Cancelled when no new session is accepted any more.
    pub(crate) closing: CancellationToken,
    /// Cancelled when, on closing, the last change is in the queue.
    pub(crate) last_changes_queued: CancellationToken,
}

/// What the end of a session is recorded with. It is read before the session is locked, since ports are not called under a lock.
#[derive(Clone, Copy)]
struct RecordContext {
    now: SystemTime,
    /// Whether other processes use the records.
    is_shared: bool,
}

/// A session that has ended and is still in the table. The reservation is dropped after all else.
struct Removal {
    reason: EndReason,
    has_client: bool,
    reservation: Option<Arc<Reservation>>,
}

impl RegistryState {
    /// Ends a session. False if it has ended before or the condition does not hold.
    pub(crate) fn end(&self, session: &Session, reason: EndReason, condition: EndCondition) -> bool {
        let context = self.record_context();
        let removal = {
            let mut locked = session.lock();
            // A backend that is still being stopped holds the permit, which would not be free at once.
            let shared = locked.reservation.as_ref().is_none_or(|it| Arc::strong_count(it) > 1);
            if condition == EndCondition::IfDormant && shared {
                return false;
            }
            let previous = locked.lifecycle.end(reason, condition, Instant::now());
            previous.map(|previous| self.record_end(session, &mut locked, reason, previous, context))
        };
        let ended = removal.is_some();
        if let Some(removal) = removal {
            self.remove(session, removal);
        }
        ended
    }

    /// Takes a backend from its session, which then is dormant or has ended. Nothing happens if the session has another one, or is
    /// not idle for long enough.
    pub(crate) fn detach(&self, session: &Session, backend: &Arc<AttachedBackend>, reason: DetachReason) {
        let (snapshot, context) = (backend.backend.snapshot(), self.record_context());
        let mut removal = None;
        let (detached, last_activity) = {
            let mut locked = session.lock();
            let now = Instant::now();
            let detached = locked.lifecycle.detach(backend, reason, snapshot, &self.config, now);
            if let Detached::Ended(previous) = detached {
                removal = Some(self.record_end(session, &mut locked, reason.into(), previous, context));
            }
            (detached, locked.lifecycle.last_activity().unwrap_or(now))
        };
        if detached != Detached::Unchanged && reason == DetachReason::BackendDied {
            self.observer.on(Event::BackendDied);
        }
        if let Some(removal) = removal {
            self.remove(session, removal);
        }
        if detached == Detached::Dormant {
            let tag = &session.tag;
            session.span.in_scope(|| match reason {
                DetachReason::Idle => tracing::info!(session = %tag, "session is dormant: it was idle"),
                DetachReason::BackendDied => tracing::info!(session = %tag, "session is dormant: its backend died"),
                DetachReason::Expired => tracing::warn!(session = %tag, "session is dormant: its credential expired"),
            });
            self.observer.on(Event::Detached(reason));
            self.changes.mark_changed(session);
            self.rotation_deadlines.cancel(&session.key);
            self.reap_deadlines.set(session.key, last_activity + self.config.retain);
        }
    }

    /// Ends the sessions of all grants of a user.
    pub(crate) fn end_user(&self, user: &UserId) -> Vec<Arc<Session>> {
        self.revoke(RevokedSubject::User(user.clone()), |session| session.user == *user)
    }

    /// Records a revocation and ends its sessions.
    pub(crate) fn revoke(&self, subject: RevokedSubject, filter: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        // Recorded first: an opening that is not in the table yet finds it.
        self.revocations.record(subject, Instant::now());
        self.end_where(EndReason::Revoked, filter)
    }

    /// Ends the sessions that `filter` picks, and returns them.
    pub(crate) fn end_where(&self, reason: EndReason, filter: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let sessions = self.table.select(filter);
        for session in &sessions {
            self.end(session, reason, EndCondition::Always);
        }
        sessions
    }

    fn record_context(&self) -> RecordContext {
        RecordContext {
            now: self.clock.now(),
            is_shared: self.is_shared(),
        }
    }

    /// Whether restored sessions may be served by other processes ([`Records::is_shared`]).
    pub(crate) fn is_shared(&self) -> bool {
        self.records.as_ref().is_some_and(|records| records.is_shared())
    }

    /// Queues the end for the records, under the lock: a task that finds the session ended finds its end in the queue.
    fn record_end(
        &self,
        session: &Session,
        locked: &mut Locked,
        reason: EndReason,
        previous: PreviousPhase,
        context: RecordContext,
    ) -> Removal {
        if let PreviousPhase::Open { last_activity } = previous {
            let as_loaded = locked
                .written
                .as_ref()
                .is_some_and(|written| written.snapshot.is_none());
            let borrowed = as_loaded && context.is_shared;
            let used = wall_time(context.now, last_activity);
            if let Some(change) = end_change(session.key, reason, context.now, used, borrowed) {
                self.changes.push_ended(change);
            }
        }
        Removal {
            reason,
            has_client: previous != PreviousPhase::Opening,
            reservation: locked.reservation.take(),
        }
    }

    /// Removes an ended session from the table and tells all that wait for its end.
    fn remove(&self, session: &Session, removal: Removal) {
        let Removal {
            reason,
            has_client,
            reservation,
        } = removal;
        // An id that was never given out cannot come back, and must not push out the tombstone of one that can.
        self.table.remove(&session.key, has_client);
        self.reap_deadlines.cancel(&session.key);
        self.rotation_deadlines.cancel(&session.key);
        session.ended.cancel();
        session.attached.notify_waiters();
        self.observer.on(Event::Ended(reason));
        session
            .span
            .in_scope(|| tracing::info!(session = %session.tag, ?reason, "session ended"));
        drop(reservation);
    }
}
