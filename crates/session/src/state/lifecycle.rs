//! The phase of a session and all transitions between phases: a synchronous state machine that
//! takes the time as an argument.
//!
//! ```text
//!                                    attach (rotation)
//!                                         .---.
//!              attach, open               |   v      detach: retained
//!   Opening ------------------------->  Attached  ----------------------->  Dormant
//!      |                                  |   ^                                |
//!      |                                  |   `---- attach (revival) ----------|
//!      | end                              | end, or detach: not retained       | end
//!      v                                  v                                    v
//!   Ended(reason) <------------------------------------------------------------'
//! ```
//!
//! Requests, the reaper and the tasks of backends race for one session. Each of them asks here,
//! under the lock of the session, so that one of them comes first: no exchange begins on a session
//! that has just ended, and a backend that has been replaced changes nothing. [`Lifecycle::detach`]
//! is the one place that decides whether a session without its backend becomes dormant or ends, and
//! [`Lifecycle::enter`] the one that retires a backend.

use std::{mem, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::restart_backoff::RestartBackoff;
use crate::{
    config::Config,
    ports::{DetachReason, EndReason, SessionError, Snapshot},
};

/// A backend as the state machine sees it.
pub(crate) trait Retire {
    /// Closes the backend to new exchanges. Those in flight finish on it.
    fn retire(&self);
    /// True once the backend has answered a request.
    fn has_answered(&self) -> bool;
}

#[derive(Debug)]
pub(crate) enum Phase<B> {
    /// The first backend starts, or has not yet answered `initialize`: no client knows the id.
    Opening { backend: Option<Arc<B>> },
    /// A client has the id, and a backend serves it.
    Attached { backend: Arc<B> },
    /// A client has the id, and the next request starts a backend.
    Dormant { revival: Option<RevivalReceiver> },
    /// Final.
    Ended(EndReason),
}

/// The phase with what goes along with it.
#[derive(Debug)]
pub(crate) struct Lifecycle<B> {
    phase: Phase<B>,
    /// Exchanges that keep the session from becoming dormant.
    in_flight: usize,
    /// The time at which the last exchange began or ended.
    last_activity: Instant,
    /// The snapshot of the last backend. After a restart it is in the record only.
    snapshot: Option<Snapshot>,
    pub(crate) backoff: RestartBackoff,
}

/// The condition under which a session is ended, checked under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCondition {
    Always,
    /// It is dormant, and nothing is in flight or being revived.
    IfDormant,
    /// It has been idle for so long.
    IfIdleFor(Duration),
}

/// The outcome of [`Lifecycle::detach`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// The backend was not the session's, or the session was not idle for long enough.
    Unchanged,
    /// The session is still opening: its opener decides how to go on.
    StillOpening,
    Dormant,
    Ended(PreviousPhase),
}

/// The phase of a session before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PreviousPhase {
    /// The id was never given out.
    Opening,
    /// A client holds the id.
    Open { last_activity: Instant },
}

/// The outcome of a revival; `None` while it is under way.
pub(crate) type RevivalReceiver = watch::Receiver<Option<Result<(), SessionError>>>;
pub(crate) type RevivalSender = watch::Sender<Option<Result<(), SessionError>>>;

/// The outcome of [`Lifecycle::join_revival`].
#[derive(Debug)]
pub(crate) enum JoinRevival {
    /// The session has a backend.
    Attached,
    /// A revival is under way.
    Joined(RevivalReceiver),
    /// The caller runs the revival.
    Begun(RevivalSender, RevivalReceiver),
    Refused(SessionError),
}

impl<B: Retire> Lifecycle<B> {
    pub(crate) fn opening(now: Instant) -> Self {
        Self::new(Phase::Opening { backend: None }, now)
    }

    /// A session that was restored from its record.
    pub(crate) fn dormant(last_activity: Instant) -> Self {
        Self::new(Phase::Dormant { revival: None }, last_activity)
    }

    fn new(phase: Phase<B>, last_activity: Instant) -> Self {
        Self {
            phase,
            in_flight: 0,
            last_activity,
            snapshot: None,
            backoff: RestartBackoff::default(),
        }
    }

    pub(crate) fn phase(&self) -> &Phase<B> {
        &self.phase
    }

    /// The backend that serves the session now.
    pub(crate) fn backend(&self) -> Option<&Arc<B>> {
        match &self.phase {
            Phase::Opening { backend } => backend.as_ref(),
            Phase::Attached { backend } => Some(backend),
            Phase::Dormant { .. } | Phase::Ended(_) => None,
        }
    }

    pub(crate) fn is_attached_to(&self, backend: &Arc<B>) -> bool {
        self.backend().is_some_and(|current| Arc::ptr_eq(current, backend))
    }

    /// True if a client has the id and may use the session.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Attached { .. } | Phase::Dormant { .. })
    }

    /// The snapshot for the next backend, unless it is in the record only.
    pub(crate) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// The time since the last activity; `None` while an exchange is in flight, and unless the
    /// session is open.
    pub(crate) fn idle(&self, now: Instant) -> Option<Duration> {
        let last_activity = self.last_activity().filter(|_| self.in_flight == 0)?;
        Some(now.saturating_duration_since(last_activity))
    }

    /// The time at which the last exchange began or ended; `None` unless the session is open.
    pub(crate) fn last_activity(&self) -> Option<Instant> {
        self.is_open().then_some(self.last_activity)
    }

    /// Counts activity that does not keep the session from becoming dormant. False unless the
    /// session is open.
    pub(crate) fn touch(&mut self, now: Instant) -> bool {
        let open = self.is_open();
        if open {
            self.last_activity = now;
        }
        open
    }

    /// Begins an exchange, until [`Lifecycle::end_exchange`]. False unless the session is open.
    pub(crate) fn begin_exchange(&mut self, now: Instant) -> bool {
        let open = self.touch(now);
        self.in_flight += usize::from(open);
        open
    }

    pub(crate) fn end_exchange(&mut self, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.last_activity = now;
    }

    /// Attaches a backend: to a session without one, or replacing `old`. False if that is not the
    /// session's backend or the session has ended.
    pub(crate) fn attach(&mut self, backend: &Arc<B>, old: Option<&Arc<B>>) -> bool {
        let expected = self.backend().map(Arc::as_ptr) == old.map(Arc::as_ptr);
        let backend = Arc::clone(backend);
        match self.phase {
            Phase::Opening { .. } if expected => self.enter(Phase::Opening { backend: Some(backend) }),
            Phase::Attached { .. } | Phase::Dormant { .. } if expected => self.enter(Phase::Attached { backend }),
            Phase::Opening { .. } | Phase::Attached { .. } | Phase::Dormant { .. } | Phase::Ended(_) => return false,
        }
        true
    }

    /// Opens the session after `backend` has answered `initialize`, with that exchange in flight.
    /// False if the session has lost the backend or has ended.
    pub(crate) fn open(&mut self, backend: &Arc<B>, now: Instant) -> bool {
        if !matches!(self.phase, Phase::Opening { .. }) || !self.is_attached_to(backend) {
            return false;
        }
        self.backoff.reset();
        self.enter(Phase::Attached {
            backend: Arc::clone(backend),
        });
        self.begin_exchange(now)
    }

    /// Takes the backend away. The session becomes dormant if sessions are retained and there is a
    /// snapshot to revive it from, and ends otherwise.
    pub(crate) fn detach(
        &mut self,
        backend: &Arc<B>,
        reason: DetachReason,
        snapshot: Option<Snapshot>,
        config: &Config,
        now: Instant,
    ) -> Detached {
        let idle_enough = || self.idle(now).is_some_and(|idle| idle >= config.idle_timeout);
        if !self.is_attached_to(backend) || (reason == DetachReason::Idle && !idle_enough()) {
            return Detached::Unchanged;
        }
        let died = reason == DetachReason::BackendDied;
        if died && !backend.has_answered() {
            self.backoff.record_failure(now, config);
        }
        let opening = matches!(self.phase, Phase::Opening { .. });
        let retained = !config.retain.is_zero() && snapshot.is_some();
        if opening && (died || retained) {
            self.enter(Phase::Opening { backend: None });
            Detached::StillOpening
        } else if retained {
            self.snapshot = snapshot;
            self.enter(Phase::Dormant { revival: None });
            Detached::Dormant
        } else {
            let end_reason = EndReason::from(reason);
            Detached::Ended(self.enter_ended(end_reason))
        }
    }

    /// Ends the session; `None` if it has ended before or the condition does not hold.
    pub(crate) fn end(&mut self, reason: EndReason, condition: EndCondition, now: Instant) -> Option<PreviousPhase> {
        let idle = self.idle(now);
        let allowed = match condition {
            EndCondition::Always => !matches!(self.phase, Phase::Ended(_)),
            EndCondition::IfDormant => idle.is_some() && matches!(self.phase, Phase::Dormant { revival: None }),
            EndCondition::IfIdleFor(time) => idle.is_some_and(|idle| idle >= time),
        };
        allowed.then(|| self.enter_ended(reason))
    }

    /// Joins the revival of a dormant session, or begins one.
    pub(crate) fn join_revival(&mut self, now: Instant) -> JoinRevival {
        match &mut self.phase {
            Phase::Attached { .. } => JoinRevival::Attached,
            Phase::Ended(EndReason::Revoked) => JoinRevival::Refused(SessionError::SignInRequired),
            Phase::Opening { .. } | Phase::Ended(_) => JoinRevival::Refused(SessionError::Ended),
            Phase::Dormant { revival: Some(revival) } => JoinRevival::Joined(revival.clone()),
            Phase::Dormant { revival } => {
                if let Some(remaining) = self.backoff.remaining(now) {
                    return JoinRevival::Refused(SessionError::BackingOff(remaining));
                }
                let (sender, receiver) = watch::channel(None);
                *revival = Some(receiver.clone());
                JoinRevival::Begun(sender, receiver)
            }
        }
    }

    /// Removes a revival, so that the next request begins another one.
    pub(crate) fn finish_revival(&mut self, finished: &RevivalReceiver) {
        if let Phase::Dormant { revival } = &mut self.phase {
            revival.take_if(|revival| revival.same_channel(finished));
        }
    }

    fn enter_ended(&mut self, reason: EndReason) -> PreviousPhase {
        let previous = match self.last_activity() {
            Some(last_activity) => PreviousPhase::Open { last_activity },
            None => PreviousPhase::Opening,
        };
        self.enter(Phase::Ended(reason));
        previous
    }

    /// Changes the phase, and retires the backend that is no longer attached. By then the next one
    /// is in its place.
    fn enter(&mut self, next: Phase<B>) {
        if let Phase::Opening { backend: Some(before) } | Phase::Attached { backend: before } =
            mem::replace(&mut self.phase, next)
            && !self.is_attached_to(&before)
        {
            before.retire();
        }
    }
}

#[cfg(test)]
mod tests;
