//! The limit on token renewals after a refusal by the server: one at a time for a user, and at most
//! one a minute, for all of the user's sessions. A server that refuses every token does not cause a
//! renewal for each request.
//!
//! A user is forgotten once a renewal is permitted again. While [`MAX_USERS`] are remembered, other
//! users get no renewal.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use session::ports::UserId;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

/// The pause between two renewals of a user.
pub(super) const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);

/// The users that are remembered.
const MAX_USERS: usize = 4096;

/// The recent renewals of all users.
#[derive(Debug, Default)]
pub(crate) struct RenewalLimiter(Mutex<HashMap<UserId, Arc<AsyncMutex<UserRenewals>>>>);

/// The last renewal of a user; locked while one is in progress.
#[derive(Debug, Default)]
pub(super) struct UserRenewals {
    last: Option<Instant>,
}

impl RenewalLimiter {
    /// The renewals of a user; `None` if too many users are remembered.
    pub(super) fn of(&self, user: &UserId, now: Instant) -> Option<Arc<AsyncMutex<UserRenewals>>> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(renewals) = users.get(user) {
            return Some(Arc::clone(renewals));
        }
        if users.len() >= MAX_USERS {
            // An entry that is locked or has another owner is in use.
            users.retain(|_, renewals| {
                Arc::strong_count(renewals) > 1 || renewals.try_lock().map_or(true, |renewals| !renewals.is_due(now))
            });
            if users.len() >= MAX_USERS {
                return None;
            }
        }
        Some(Arc::clone(users.entry(user.clone()).or_default()))
    }
}

impl UserRenewals {
    /// True if a renewal is permitted now; it then counts as begun.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        if due {
            self.last = Some(now);
        }
        due
    }

    fn is_due(&self, now: Instant) -> bool {
        self.last
            .is_none_or(|at| now.saturating_duration_since(at) >= MIN_RENEWAL_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(limiter: &RenewalLimiter, user: usize, now: Instant) -> Option<bool> {
        let renewals = limiter.of(&UserId(user.to_string().into()), now)?;
        let mut renewals = renewals.try_lock().expect("no other owner");
        Some(renewals.begin(now))
    }

    #[test]
    fn each_user_has_one_renewal_a_minute() {
        let (limiter, start) = (RenewalLimiter::default(), Instant::now());
        assert_eq!(begin(&limiter, 1, start), Some(true));
        assert_eq!(begin(&limiter, 1, start), Some(false));
        assert_eq!(begin(&limiter, 2, start), Some(true));
        assert_eq!(begin(&limiter, 1, start + MIN_RENEWAL_INTERVAL), Some(true));
    }

    #[test]
    fn remembered_users_are_bounded() {
        let (limiter, start) = (RenewalLimiter::default(), Instant::now());
        for user in 0..MAX_USERS {
            assert_eq!(begin(&limiter, user, start), Some(true));
        }
        assert_eq!(begin(&limiter, MAX_USERS, start), None);
        assert_eq!(begin(&limiter, 0, start), Some(false), "known users keep their entry");
        assert_eq!(begin(&limiter, MAX_USERS, start + MIN_RENEWAL_INTERVAL), Some(true));
    }
}
