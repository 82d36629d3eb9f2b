//! The restart backoff of each user, beside that of each session: sessions of one user start the
//! same program, so a program that ends at once is not started once more for each new session.
//!
//! Only users with failed starts are remembered, and at most [`MAX_USERS`] of them. Beyond that
//! those are forgotten whose delay is over.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::restart_backoff::RestartBackoff;
use crate::{
    config::Config,
    ports::UserId,
    sync::{AtomicBool, Mutex, lock},
};

/// The number of users that are remembered.
const MAX_USERS: usize = 4096;

/// Nothing else is locked under its lock.
#[derive(Debug, Default)]
pub(crate) struct StartBackoffs {
    users: Mutex<HashMap<UserId, RestartBackoff>>,
    /// True if there may be a user. For the hot path.
    any: AtomicBool,
}

impl StartBackoffs {
    /// Counts a server of a user that did not start, or ended without having answered anything.
    pub(crate) fn record_failure(&self, user: &UserId, now: Instant, config: &Config) {
        let mut users = lock(&self.users);
        if users.len() >= MAX_USERS && !users.contains_key(user) {
            users.retain(|_, backoff| backoff.remaining(now).is_some());
            if users.len() >= MAX_USERS {
                return;
            }
        }
        users.entry(user.clone()).or_default().record_failure(now, config);
        self.any.store(true, Ordering::Relaxed);
    }

    /// Forgets the failures of a user, since a server has answered.
    pub(crate) fn reset(&self, user: &UserId) {
        if self.any() {
            let mut users = lock(&self.users);
            users.remove(user);
            self.any.store(!users.is_empty(), Ordering::Relaxed);
        }
    }

    /// The time until the next start for a user; `None` if it may be now.
    pub(crate) fn remaining(&self, user: &UserId, now: Instant) -> Option<Duration> {
        if !self.any() {
            return None;
        }
        lock(&self.users).get(user)?.remaining(now)
    }

    /// True if starts of any user have failed.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::permutations::once;

    #[test]
    fn number_of_remembered_users_is_bounded_and_an_answer_resets_one() {
        once(|| {
            let (now, config) = (Instant::now(), Config::default());
            let user = |n: usize| UserId(n.to_string().into());
            let backoffs = StartBackoffs::default();
            for n in 0..MAX_USERS {
                backoffs.record_failure(&user(n), now, &config);
                backoffs.record_failure(&user(n), now, &config);
            }
            backoffs.record_failure(&user(MAX_USERS), now, &config);
            assert_eq!(lock(&backoffs.users).len(), MAX_USERS);
            assert_eq!(backoffs.remaining(&user(0), now), Some(config.backoff));
            backoffs.reset(&user(0));
            assert_eq!(backoffs.remaining(&user(0), now), None);
            let later = now + config.backoff;
            backoffs.record_failure(&user(MAX_USERS), later, &config);
            backoffs.record_failure(&user(MAX_USERS + 1), later, &config);
            assert_eq!(lock(&backoffs.users).len(), 1, "the delays of the others are over");
        });
    }
}
