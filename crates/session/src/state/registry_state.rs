//! The state of a registry, and the only functions that take a server from a session or end a
//! session.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    attached_server::AttachedServer,
    change_queue::{ChangeQueue, end_change, wall_time},
    deadlines::Deadlines,
    initializes::Initializes,
    lifecycle::{Detached, EndCondition, Lifecycle, Phase, PreviousPhase},
    quota::Quota,
    renewal_gate::RenewalGate,
    revocations::Revocations,
    session::{Locked, Session},
    start_backoffs::StartBackoffs,
    table::SessionTable,
};
use crate::{
    config::Config,
    ports::{
        Change, Clock, DetachReason, EndReason, Event, Host, Observer, Records, RevokedSubject, SessionError, UserId,
    },
    sync::{Mutex, MutexGuard, Tasks},
};

#[derive(Debug)]
pub(crate) struct RegistryState {
    pub(crate) config: Config,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) records: Option<Arc<dyn Records>>,
    /// True if restored sessions may be served by other processes ([`Records::is_shared`]).
    pub(crate) records_are_shared: bool,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) table: SessionTable,
    pub(crate) quota: Arc<Quota>,
    pub(crate) changes: ChangeQueue,
    pub(crate) revocations: Revocations,
    pub(crate) initializes: Initializes,
    /// Held while an implicit session is made, so that each is made once and their number is exact.
    pub(crate) making: Mutex<()>,
    pub(crate) renewal_gate: RenewalGate,
    pub(crate) start_backoffs: StartBackoffs,
    /// The next check of each session by the reaper.
    pub(crate) reap_deadlines: Deadlines,
    /// The next rotation of each session.
    pub(crate) rotation_deadlines: Deadlines,
    /// Wakes the rotator before its next round.
    pub(crate) rotate_now: Notify,
    /// The keepers of servers, wakes and rotations, and the periodic ones.
    pub(crate) tasks: Tasks,
    /// Cancelled when no new session is accepted any more.
    pub(crate) closing: CancellationToken,
    /// Cancelled when, on closing, the last change is in the queue.
    pub(crate) last_changes_queued: CancellationToken,
}

impl RegistryState {
    /// Ends a session. False if it has ended before or the condition does not hold.
    pub(crate) fn end(&self, session: &Session, reason: EndReason, condition: EndCondition) -> bool {
        // Outside of the lock: this is a call of a port.
        let wall_now = self.clock.now();
        let mut locked = session.lock();
        // A server that is still being stopped shares the permit, which would not be free at once.
        let permit = locked.share.as_ref().and_then(|share| share.permit.as_ref());
        let shared = permit.is_none_or(|permit| Arc::strong_count(permit) > 1);
        if condition == EndCondition::IfDormant && (shared || locked.retired.is_some()) {
            return false;
        }
        let idle = session.idle(&locked, Instant::now());
        let Some(previous) = locked.lifecycle.end(reason, condition, idle) else {
            return false;
        };
        self.finish_end(session, locked, reason, previous, wall_now);
        true
    }

    /// Takes a server from its session, which then is dormant or has ended. Nothing happens if the
    /// session has another one, or is not idle for long enough.
    pub(crate) fn detach(&self, session: &Session, server: &Arc<AttachedServer>, reason: DetachReason) {
        // Outside of the lock: this is a call of a port.
        let wall_now = self.clock.now();
        let mut locked = session.lock();
        let Some(conversation) = locked.conversation.clone() else {
            return;
        };
        if !locked.lifecycle.is_attached_to(server) {
            return;
        }
        let now = Instant::now();
        match reason {
            DetachReason::Idle => {
                let idle = session.idle(&locked, now);
                let idle_enough = idle.is_some_and(|idle| idle >= self.config.idle_timeout);
                if !idle_enough || !conversation.retire_if_idle(server.number) {
                    return;
                }
            }
            DetachReason::BackendDied | DetachReason::Expired => conversation.detach(server.number, reason),
        }
        let retained = !self.config.retain.is_zero() && conversation.snapshot().is_some();
        let Some(detached) = locked.lifecycle.detach(server, reason, retained) else {
            return;
        };
        // The wake of an opening session counts a failure once, however often it tries.
        if detached != Detached::StillOpening {
            if server.server.has_answered() {
                self.record_answer(session, &mut locked);
            } else if reason == DetachReason::BackendDied {
                self.record_failure(session, &mut locked, now);
            }
        }
        match detached {
            Detached::Ended(previous) => self.finish_end(session, locked, reason.into(), previous, wall_now),
            Detached::StillOpening | Detached::Dormant => {
                self.schedule(session, &locked.lifecycle, now);
                drop(locked);
            }
        }
        if reason == DetachReason::BackendDied {
            self.observer.on(Event::BackendDied);
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
        }
    }

    /// Counts a server that did not start, or ended without having answered anything. The time
    /// until the next start.
    pub(crate) fn record_failure(&self, session: &Session, locked: &mut Locked, now: Instant) -> Duration {
        let backoff = &mut locked.lifecycle.backoff;
        backoff.record_failure(now, &self.config);
        self.start_backoffs.record_failure(&session.user, now, &self.config);
        let delay = backoff
            .remaining(now)
            .max(self.start_backoffs.remaining(&session.user, now));
        delay.unwrap_or_default()
    }

    /// Forgets the failures of a session and of its user, since a server has answered.
    pub(crate) fn record_answer(&self, session: &Session, locked: &mut Locked) {
        locked.lifecycle.backoff.reset();
        self.start_backoffs.reset(&session.user);
    }

    /// Notes activity of a session.
    pub(crate) fn touch(&self, session: &Session) {
        session.activity.touch(Instant::now());
        self.changes.mark_changed(session);
    }

    /// Sets the deadlines of a session for the phase that it has just entered. Under its lock: of
    /// two changes that race, the deadlines of the later one stay.
    pub(crate) fn schedule(&self, session: &Session, lifecycle: &Lifecycle<AttachedServer>, now: Instant) {
        // Counted from the last exchange: an attachment is no activity.
        let last_activity = session.activity.last();
        let reap_at = match lifecycle.phase() {
            Phase::Opening { .. } => Some(now + self.config.idle_timeout),
            Phase::Attached { .. } => Some(last_activity + self.config.idle_timeout),
            Phase::Dormant => Some(last_activity + self.config.retain),
            Phase::Ended(_) => None,
        };
        let expiry = lifecycle.server().and_then(|server| server.expiry);
        let rotate_at = expiry.map(|expiry| expiry.rotate_at(self.config.refresh_lead, &session.user, now));
        self.reap_deadlines.set(session.key, reap_at);
        self.rotation_deadlines.set(session.key, rotate_at);
    }

    /// Ends the sessions of all grants of a user.
    pub(crate) fn end_user(&self, user: &UserId) -> Vec<Arc<Session>> {
        self.revoke(RevokedSubject::User(user.clone()), |session| session.user == *user)
    }

    /// Records a revocation and ends its sessions.
    pub(crate) fn revoke(&self, subject: RevokedSubject, filter: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        // Recorded first: an opening that is not in the table yet finds it.
        self.revocations.record(subject.clone(), Instant::now());
        let ended = self.end_where(EndReason::Revoked, filter);
        // Only a session that is open notes its `initialize`.
        self.initializes.forget(&subject);
        self.changes.push([Change::Revoke(subject, self.clock.now())]);
        ended
    }

    /// Ends the sessions that `filter` picks, and returns them.
    pub(crate) fn end_where(&self, reason: EndReason, filter: impl Fn(&Session) -> bool) -> Vec<Arc<Session>> {
        let sessions = self.table.select(filter);
        for session in &sessions {
            self.end(session, reason, EndCondition::Always);
        }
        sessions
    }

    /// Completes the end of a session. It is queued for the records under the lock, so that a task
    /// that finds the session ended finds its end in the queue. The permit is released last.
    fn finish_end(
        &self,
        session: &Session,
        mut locked: MutexGuard<'_, Locked>,
        reason: EndReason,
        previous: PreviousPhase,
        wall_now: SystemTime,
    ) {
        if previous == PreviousPhase::Open {
            let as_loaded = locked.written.as_ref().is_some_and(|written| written.as_loaded);
            let borrowed = as_loaded && self.records_are_shared;
            let last_activity = wall_time(wall_now, session.activity.last());
            let change = end_change(session.key, session.implicit, reason, wall_now, last_activity, borrowed);
            self.changes.push(change);
        }
        self.schedule(session, &locked.lifecycle, Instant::now());
        let (share, conversation) = (locked.share.take(), locked.conversation.take());
        drop(locked);
        // An id that was never given out cannot come back, and must not push out the tombstone of
        // one that can.
        let tombstone = previous != PreviousPhase::Opening && !session.implicit;
        self.table.remove(session, tombstone);
        if let Some(conversation) = conversation {
            conversation.close(match reason {
                EndReason::Revoked => SessionError::SignInRequired,
                EndReason::Shutdown => SessionError::ShuttingDown,
                EndReason::Deleted
                | EndReason::BackendDied
                | EndReason::Idle
                | EndReason::NotOpened
                | EndReason::Evicted
                | EndReason::Unrevivable
                | EndReason::Expired => SessionError::Ended,
            });
        }
        session.ended.cancel();
        self.observer.on(Event::Ended(reason));
        let span = &session.span;
        span.in_scope(|| tracing::info!(session = %session.tag, ?reason, "session ended"));
        drop(share);
    }
}
