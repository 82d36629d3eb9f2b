//! The phase of a session and all transitions between phases: a synchronous state machine that
//! takes the time as an argument.
//!
//! ```text
//!                                    attach (rotation)
//!                                         .---.
//!              attach, open               |   v      detach: retained
//!   Opening ------------------------->  Attached  ----------------------->  Dormant
//!      |                                  |   ^                                |
//!      |                                  |   `------ attach (wake) -----------|
//!      | end                              | end, or detach: not retained       | end
//!      v                                  v                                    v
//!   Ended(reason) <------------------------------------------------------------'
//! ```
//!
//! Requests, the reaper and the keepers of servers race for one session. Each of them asks here,
//! under the lock of the session, so that one of them comes first: a server that has been replaced
//! changes nothing, and one wake at a time starts servers for calls that wait. A call that waits
//! while a wake is under way gets its answer from that wake, so the wake ends in the step that
//! attaches a server, or before the calls are refused. [`Lifecycle::detach`] is the one place that
//! decides whether a session without its server becomes dormant or ends, and
//! [`Lifecycle::enter`] the one that retires a server.
//!
//! An opening session has one wake. It lasts until the server has answered `initialize`, and its
//! failure is final: a call that asks for a server after it is refused with the same error.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::restart_backoff::RestartBackoff;
use crate::ports::{DetachReason, EndReason, ServerNumber, SessionError};

/// A server as the state machine sees it.
pub(crate) trait Retire {
    /// Notes that the server is no longer the session's.
    fn retire(&self);
}

#[derive(Debug)]
pub(crate) enum Phase<S> {
    /// The first server starts, or has not yet answered `initialize`: no client knows the id.
    Opening {
        server: Option<Arc<S>>,
        /// The time by which the server has to have answered.
        deadline: Option<Instant>,
        failure: Option<SessionError>,
    },
    /// A client may use the session, and a server serves it.
    Attached { server: Arc<S> },
    /// A client may use the session, and the next call starts a server.
    Dormant,
    /// Final.
    Ended(EndReason),
}

/// The phase with what goes along with it.
#[derive(Debug)]
pub(crate) struct Lifecycle<S> {
    phase: Phase<S>,
    wake: Option<Wake>,
    /// The number of wakes so far.
    wakes: u64,
    /// The newest server that was ordered.
    newest: ServerNumber,
    pub(crate) backoff: RestartBackoff,
}

/// A wake under way: a server is being started for calls that wait.
#[derive(Debug)]
struct Wake {
    id: WakeId,
    waiting_since: Vec<Instant>,
}

/// Names a wake of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WakeId(u64);

/// The answer to a call that wants a server ([`Lifecycle::want`]).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// The call has its server, or gets it from the wake under way.
    Nothing,
    /// The caller runs this wake.
    Wake(WakeId),
    Refuse(SessionError),
}

/// The condition under which a session is ended, checked under its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndCondition {
    Always,
    /// It is dormant, and nothing is in flight or being started.
    IfDormant,
    /// It has been idle for so long.
    IfIdleFor(Duration),
}

/// The outcome of [`Lifecycle::detach`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Detached {
    /// The session is still opening: its wake decides how to go on.
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
    Open,
}

/// The number of calls of one wake whose wait is measured.
const MAX_MEASURED: usize = 256;

impl<S: Retire> Lifecycle<S> {
    pub(crate) fn opening() -> Self {
        Self::new(Phase::Opening {
            server: None,
            deadline: None,
            failure: None,
        })
    }

    /// A session that was restored from its record, or an implicit one.
    pub(crate) fn dormant() -> Self {
        Self::new(Phase::Dormant)
    }

    fn new(phase: Phase<S>) -> Self {
        Self {
            phase,
            wake: None,
            wakes: 0,
            newest: ServerNumber::default(),
            backoff: RestartBackoff::default(),
        }
    }

    pub(crate) fn phase(&self) -> &Phase<S> {
        &self.phase
    }

    /// The server that serves the session now.
    pub(crate) fn server(&self) -> Option<&Arc<S>> {
        match &self.phase {
            Phase::Opening { server, .. } => server.as_ref(),
            Phase::Attached { server } => Some(server),
            Phase::Dormant | Phase::Ended(_) => None,
        }
    }

    pub(crate) fn is_attached_to(&self, server: &Arc<S>) -> bool {
        self.server().is_some_and(|current| Arc::ptr_eq(current, server))
    }

    /// True if a client may use the session: it has the id, or the session is implicit.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Attached { .. } | Phase::Dormant)
    }

    pub(crate) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening { .. })
    }

    /// True while a server is being started for calls that wait.
    pub(crate) fn is_waking(&self) -> bool {
        self.wake.is_some()
    }

    /// The number for the next server.
    pub(crate) fn next_server(&mut self) -> ServerNumber {
        self.newest.0 += 1;
        self.newest
    }

    /// Sets the time by which the server of an opening session has to have answered.
    pub(crate) fn set_deadline(&mut self, at: Instant) {
        if let Phase::Opening { deadline, .. } = &mut self.phase {
            *deadline = Some(at);
        }
    }

    /// Attaches a server: to a session without one, or replacing `old`. `None` if that is not the
    /// session's server or the session has ended. A wake is over with it, unless the session is
    /// opening: the times since which its calls have waited.
    pub(crate) fn attach(&mut self, server: &Arc<S>, old: Option<&Arc<S>>) -> Option<Vec<Instant>> {
        if self.server().map(Arc::as_ptr) != old.map(Arc::as_ptr) {
            return None;
        }
        let server = Arc::clone(server);
        let mut waited = Vec::new();
        match self.phase {
            Phase::Opening { deadline, failure, .. } => self.enter(Phase::Opening {
                server: Some(server),
                deadline,
                failure,
            }),
            Phase::Attached { .. } | Phase::Dormant => {
                waited = self.wake.take().map_or(waited, |wake| wake.waiting_since);
                self.enter(Phase::Attached { server });
            }
            Phase::Ended(_) => return None,
        }
        Some(waited)
    }

    /// Opens the session after its server has answered `initialize`. False if the session has lost
    /// the server or has ended, or if the answer comes too late.
    pub(crate) fn open(&mut self, now: Instant) -> bool {
        let Phase::Opening {
            server: Some(server),
            deadline,
            ..
        } = &self.phase
        else {
            return false;
        };
        if deadline.is_some_and(|deadline| deadline < now) {
            return false;
        }
        let server = Arc::clone(server);
        self.backoff.reset();
        self.enter(Phase::Attached { server });
        true
    }

    /// Takes the server away; `None` if it is not the session's. The session becomes dormant if it
    /// is retained, and ends otherwise.
    pub(crate) fn detach(&mut self, server: &Arc<S>, reason: DetachReason, retained: bool) -> Option<Detached> {
        if !self.is_attached_to(server) {
            return None;
        }
        Some(match self.phase {
            Phase::Opening { deadline, failure, .. } => {
                self.enter(Phase::Opening {
                    server: None,
                    deadline,
                    failure,
                });
                Detached::StillOpening
            }
            Phase::Attached { .. } | Phase::Dormant | Phase::Ended(_) if retained => {
                self.enter(Phase::Dormant);
                Detached::Dormant
            }
            Phase::Attached { .. } | Phase::Dormant | Phase::Ended(_) => {
                Detached::Ended(self.enter_ended(reason.into()))
            }
        })
    }

    /// Ends the session, which is `idle` for so long; `None` if it has ended before or the
    /// condition does not hold.
    pub(crate) fn end(
        &mut self,
        reason: EndReason,
        condition: EndCondition,
        idle: Option<Duration>,
    ) -> Option<PreviousPhase> {
        let allowed = match condition {
            EndCondition::Always => !matches!(self.phase, Phase::Ended(_)),
            EndCondition::IfDormant => idle.is_some() && matches!(self.phase, Phase::Dormant),
            EndCondition::IfIdleFor(time) => self.is_open() && idle.is_some_and(|idle| idle >= time),
        };
        allowed.then(|| self.enter_ended(reason))
    }

    /// Decides about a call that waits for a server. `user_delay` is the time for which no server
    /// of the user is started.
    pub(crate) fn want(&mut self, now: Instant, user_delay: Option<Duration>) -> Want {
        match (&self.phase, &mut self.wake) {
            (Phase::Ended(EndReason::Revoked), _) => Want::Refuse(SessionError::SignInRequired),
            (Phase::Ended(EndReason::Shutdown), _) => Want::Refuse(SessionError::ShuttingDown),
            (Phase::Ended(_), _) => Want::Refuse(SessionError::Ended),
            (_, Some(wake)) => {
                if wake.waiting_since.len() < MAX_MEASURED {
                    wake.waiting_since.push(now);
                }
                Want::Nothing
            }
            (Phase::Attached { .. }, None) => Want::Nothing,
            (
                Phase::Opening {
                    failure: Some(error), ..
                },
                None,
            ) => Want::Refuse(*error),
            (Phase::Opening { .. } | Phase::Dormant, None) => {
                if let Some(delay) = self.backoff.remaining(now).max(user_delay) {
                    return Want::Refuse(SessionError::BackingOff(delay));
                }
                self.wakes += 1;
                let id = WakeId(self.wakes);
                self.wake = Some(Wake {
                    id,
                    waiting_since: vec![now],
                });
                Want::Wake(id)
            }
        }
    }

    /// Ends a wake without a server. The calls are to be refused afterwards. `None` if it is over.
    pub(crate) fn fail_wake(&mut self, id: WakeId, error: SessionError) -> Option<Vec<Instant>> {
        let wake = self.wake.take_if(|wake| wake.id == id)?;
        if let Phase::Opening { failure, .. } = &mut self.phase {
            *failure = Some(error);
        }
        Some(wake.waiting_since)
    }

    fn enter_ended(&mut self, reason: EndReason) -> PreviousPhase {
        let previous = if self.is_open() {
            PreviousPhase::Open
        } else {
            PreviousPhase::Opening
        };
        self.enter(Phase::Ended(reason));
        previous
    }

    /// Changes the phase, and retires the server that is no longer attached. By then the next one
    /// is in its place. A session that is attached or has ended is not waking.
    fn enter(&mut self, next: Phase<S>) {
        if matches!(next, Phase::Attached { .. } | Phase::Ended(_)) {
            self.wake = None;
        }
        if let Phase::Opening {
            server: Some(before), ..
        }
        | Phase::Attached { server: before } = mem::replace(&mut self.phase, next)
            && !self.is_attached_to(&before)
        {
            before.retire();
        }
    }
}

#[cfg(test)]
mod tests;
