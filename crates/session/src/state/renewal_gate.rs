//! The renewal gate: decides whether a backend that ended at its start is a reason to renew its
//! credential.
//!
//! A credential that looks good here may have been revoked upstream. Its backends then end at their
//! start, and only a renewal reveals why. The rules:
//!
//! - A backend that did not start, or was gone before it had answered the handshake, is a reason to
//!   ask for a renewal; one that takes too long is not.
//! - There is one such renewal at a time for a user: later requests with the same reason wait for
//!   its outcome. After it has begun there is no further one for that user for
//!   [`Config::renewal_pause`](crate::Config::renewal_pause). So a server that cannot start costs
//!   one renewal in that time, however often it is tried. A user who revokes the credential
//!   upstream within that time is asked to sign in when it is over, or when the credential has to
//!   be renewed anyway.
//! - A renewal that has succeeded allows one more start to each request whose start began before
//!   it. A terminal refusal ends the user's sessions. Anything else changes nothing.
//! - At most [`MAX_USERS`] users are remembered. While that many have had a renewal within one
//!   pause, others get none.

use std::{collections::HashMap, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    ports::UserId,
    sync::{Mutex, lock},
};

/// The number of users that are remembered.
const MAX_USERS: usize = 4096;

/// The renewals under way and the recent ones.
#[derive(Debug, Default)]
pub(crate) struct RenewalGate(Mutex<Renewals>);

/// The number of renewals that had succeeded when a start of a backend began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Generation(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RenewalOutcome {
    /// The credential is another one now: start once more.
    Renewed,
    SignInRequired,
    /// The backend ended for another reason.
    Unchanged,
}

/// The answer to a request for a renewal.
pub(crate) enum GateDecision {
    Known(RenewalOutcome),
    /// Another renewal of the user is under way.
    Wait(watch::Receiver<Option<RenewalOutcome>>),
    /// The caller renews.
    Renew(watch::Sender<Option<RenewalOutcome>>),
}

/// Removes a renewal under way when it is dropped, also by a panic.
pub(crate) struct RenewalGuard<'a> {
    pub(crate) gate: &'a RenewalGate,
    pub(crate) user: &'a UserId,
    pub(crate) succeeded: bool,
}

#[derive(Debug, Default)]
struct Renewals {
    succeeded: u64,
    by_user: HashMap<UserId, Renewal>,
}

#[derive(Debug)]
struct Renewal {
    begun: Instant,
    /// The value of `Renewals::succeeded` after the user's last renewal that succeeded.
    succeeded: u64,
    under_way: Option<watch::Receiver<Option<RenewalOutcome>>>,
}

impl Renewal {
    fn blocks(&self, now: Instant, pause: Duration) -> bool {
        self.under_way.is_some() || now.saturating_duration_since(self.begun) < pause
    }
}

impl RenewalGate {
    /// The generation to pass to [`RenewalGate::decide`]. To be taken before a backend is started.
    pub(crate) fn generation(&self) -> Generation {
        Generation(lock(&self.0).succeeded)
    }

    pub(crate) fn decide(&self, user: &UserId, started: Generation, now: Instant, pause: Duration) -> GateDecision {
        let mut renewals = lock(&self.0);
        let mut succeeded = 0;
        if let Some(renewal) = renewals.by_user.get(user) {
            if let Some(under_way) = &renewal.under_way {
                return GateDecision::Wait(under_way.clone());
            }
            if renewal.succeeded > started.0 {
                return GateDecision::Known(RenewalOutcome::Renewed);
            }
            if renewal.blocks(now, pause) {
                return GateDecision::Known(RenewalOutcome::Unchanged);
            }
            succeeded = renewal.succeeded;
        }
        if renewals.by_user.len() >= MAX_USERS {
            renewals.by_user.retain(|_, renewal| renewal.blocks(now, pause));
            if renewals.by_user.len() >= MAX_USERS {
                return GateDecision::Known(RenewalOutcome::Unchanged);
            }
        }
        let (sender, receiver) = watch::channel(None);
        let renewal = Renewal {
            begun: now,
            succeeded,
            under_way: Some(receiver),
        };
        renewals.by_user.insert(user.clone(), renewal);
        GateDecision::Renew(sender)
    }
}

impl Drop for RenewalGuard<'_> {
    fn drop(&mut self) {
        let mut renewals = lock(&self.gate.0);
        renewals.succeeded += u64::from(self.succeeded);
        let succeeded = renewals.succeeded;
        if let Some(renewal) = renewals.by_user.get_mut(self.user) {
            renewal.under_way = None;
            if self.succeeded {
                renewal.succeeded = succeeded;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::permutations::once;

    const PAUSE: Duration = Duration::from_secs(300);

    fn user(n: usize) -> UserId {
        UserId(n.to_string().into())
    }

    #[test]
    fn number_of_remembered_users_is_bounded() {
        once(|| {
            let start = Instant::now();
            let gate = RenewalGate::default();
            let decide = |n, now| gate.decide(&user(n), gate.generation(), now, PAUSE);
            for n in 0..MAX_USERS {
                assert!(matches!(decide(n, start), GateDecision::Renew(_)));
                drop(RenewalGuard {
                    gate: &gate,
                    user: &user(n),
                    succeeded: false,
                });
            }
            let refused = decide(MAX_USERS, start);
            assert!(matches!(refused, GateDecision::Known(RenewalOutcome::Unchanged)));
            assert!(matches!(decide(MAX_USERS, start + PAUSE), GateDecision::Renew(_)));
            assert_eq!(lock(&gate.0).by_user.len(), 1);
        });
    }
}
