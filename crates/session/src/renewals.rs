//! Renewals for which a dead backend is the reason.
//!
//! A credential that looks good here may have been taken back upstream. Its backends then end at their start, and nothing
//! but a renewal tells why. The rule:
//!
//! - A backend that did not start, or was gone before it had shaken hands, is a reason to ask for a renewal; one that
//!   takes too long is not. Nor is any where the spawner says that its backends renew credentials themselves
//!   ([`Spawner::renews_credentials`](crate::ports::Spawner::renews)): there it is only looked whether the user still has a credential.
//! - One such renewal at a time for a user: whoever has the same reason meanwhile waits for its outcome. After one has
//!   begun there is none for that user for [`Config::renewal_pause`](crate::Config::renewal_pause). So a server that cannot start
//!   at all costs one renewal in that time, however often it is tried; and who takes a credential back upstream within that time
//!   is told so when it is over, or when the credential has to be renewed anyhow.
//! - A renewal that has succeeded gives everyone who began to start a backend before it one more start. A refusal for good
//!   ends the user's sessions. Anything else changes nothing.
//! - At most [`MOST`] users are remembered. While they are that many within one pause, there is no renewal for others.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{
    ports::{CredentialError, Credentials, UserId},
    registry::Shared,
    sync::{Mutex, MutexGuard},
};

/// How many users are remembered.
const MOST: usize = 4096;

/// The renewals under way and of late.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<State>);

/// When, in the order of renewals, a start of a backend began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// What to do about a backend that ended at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The credential is another one now: start once more.
    Again,
    /// The user has to sign in again.
    SignIn,
    /// It has its own reasons.
    AsItIs,
}

#[derive(Debug, Default)]
struct State {
    /// How many renewals have succeeded.
    succeeded: u64,
    of: HashMap<UserId, Renewal>,
}

#[derive(Debug)]
struct Renewal {
    begun: Instant,
    /// What `succeeded` was made by the last one of this user that succeeded.
    succeeded: u64,
    under: Option<watch::Receiver<Option<Verdict>>>,
}

/// How a question goes on.
enum Turn {
    Known(Verdict),
    Wait(watch::Receiver<Option<Verdict>>),
    Begin(watch::Sender<Option<Verdict>>),
}

/// Takes a renewal out of the table, also when its task panics.
struct Landing<'a> {
    renewals: &'a Renewals,
    user: &'a UserId,
    succeeded: bool,
}

impl Renewals {
    /// To be taken before a backend is started.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.state().succeeded)
    }

    fn turn(&self, user: &UserId, mark: Mark, now: Instant, pause: Duration) -> Turn {
        let mut state = self.state();
        let mut succeeded = 0;
        if let Some(renewal) = state.of.get(user) {
            if let Some(under) = &renewal.under {
                return Turn::Wait(under.clone());
            }
            if renewal.succeeded > mark.0 {
                return Turn::Known(Verdict::Again);
            }
            if now.saturating_duration_since(renewal.begun) < pause {
                return Turn::Known(Verdict::AsItIs);
            }
            succeeded = renewal.succeeded;
        }
        if state.of.len() >= MOST {
            state
                .of
                .retain(|_, renewal| renewal.under.is_some() || now.saturating_duration_since(renewal.begun) < pause);
            if state.of.len() >= MOST {
                return Turn::Known(Verdict::AsItIs);
            }
        }
        let (tell, under) = watch::channel(None);
        let renewal = Renewal {
            begun: now,
            succeeded,
            under: Some(under),
        };
        state.of.insert(user.clone(), renewal);
        Turn::Begin(tell)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a backend that ended at its start means for the user's credential.
pub(crate) async fn ask(
    shared: &Arc<Shared>,
    user: &UserId,
    credentials: &Arc<dyn Credentials>,
    mark: Mark,
) -> Verdict {
    if shared.spawner.renews_credentials() {
        return still_there(shared, user, credentials).await;
    }
    let pause = shared.config.renewal_pause;
    let mut under = match shared.renewals.turn(user, mark, Instant::now(), pause) {
        Turn::Known(verdict) => return verdict,
        Turn::Wait(under) => under,
        Turn::Begin(tell) => {
            let under = tell.subscribe();
            let (shared, user, credentials) = (Arc::clone(shared), user.clone(), Arc::clone(credentials));
            let tasks = shared.tasks.clone();
            // On a task of its own: a client who goes away does not take it from the others.
            tasks.spawn(async move {
                let mut landing = Landing {
                    renewals: &shared.renewals,
                    user: &user,
                    succeeded: false,
                };
                let renewed = shared.closing.run_until_cancelled(credentials.refresh()).await;
                let verdict = match renewed {
                    Some(Ok(_)) => Verdict::Again,
                    Some(Err(CredentialError::Terminal(error))) => {
                        tracing::info!(user = %user.0, error, "a backend ended at its start, and its user has to sign in again");
                        shared.end_user(&user);
                        Verdict::SignIn
                    }
                    Some(Err(CredentialError::Transient(error))) => {
                        tracing::warn!(user = %user.0, error, "a backend ended at its start, and the credential cannot be renewed now");
                        Verdict::AsItIs
                    }
                    None => Verdict::AsItIs,
                };
                landing.succeeded = verdict == Verdict::Again;
                // First noted, then told.
                drop(landing);
                tell.send_replace(Some(verdict));
            });
            under
        }
    };
    match under.wait_for(Option::is_some).await {
        Ok(verdict) => (*verdict).unwrap_or(Verdict::AsItIs),
        // The task was dropped with the runtime, or panicked.
        Err(_) => Verdict::AsItIs,
    }
}

/// Whether backends that renew credentials themselves have found out that the user has to sign in again.
async fn still_there(shared: &Arc<Shared>, user: &UserId, credentials: &Arc<dyn Credentials>) -> Verdict {
    match credentials.current().await {
        Err(CredentialError::Terminal(error)) => {
            tracing::info!(user = %user.0, error, "a backend ended at its start, and its user has to sign in again");
            shared.end_user(user);
            Verdict::SignIn
        }
        Ok(_) | Err(CredentialError::Transient(_)) => Verdict::AsItIs,
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut state = self.renewals.state();
        if self.succeeded {
            state.succeeded += 1;
        }
        let succeeded = state.succeeded;
        if let Some(renewal) = state.of.get_mut(self.user) {
            renewal.under = None;
            if self.succeeded {
                renewal.succeeded = succeeded;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutations::once;

    const PAUSE: Duration = Duration::from_secs(300);

    fn user(n: usize) -> UserId {
        UserId(n.to_string().into())
    }

    #[test]
    fn the_users_that_are_remembered_are_bounded() {
        once(|| {
            let start = Instant::now();
            let renewals = Renewals::default();
            let turn = |n, now| renewals.turn(&user(n), renewals.mark(), now, PAUSE);
            for n in 0..MOST {
                assert!(matches!(turn(n, start), Turn::Begin(_)));
                drop(Landing {
                    renewals: &renewals,
                    user: &user(n),
                    succeeded: false,
                });
            }
            assert!(matches!(turn(MOST, start), Turn::Known(Verdict::AsItIs)));
            assert!(matches!(turn(MOST, start + PAUSE), Turn::Begin(_)));
            assert_eq!(renewals.state().of.len(), 1);
        });
    }
}
