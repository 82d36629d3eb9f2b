//! How often tokens are renewed since the server refuses them: for a user one at a time, and one a minute at most, however many sessions
//! the user has. So a server which refuses everything does not cost a renewal each time.
//!
//! Users are forgotten once a renewal would be permitted again. While more than [`MOST`] are remembered there is none for others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use session::ports::UserId;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

/// How long after a renewal a refusal is not met with another one.
const BETWEEN: Duration = Duration::from_secs(60);

/// How many users are remembered.
const MOST: usize = 4096;

/// The renewals of late.
#[derive(Debug, Default)]
pub(super) struct Renewals(Mutex<HashMap<UserId, Arc<AsyncMutex<Turn>>>>);

/// A user's turn to renew: held while that goes on.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// When it was last taken.
    taken: Option<Instant>,
}

impl Renewals {
    /// The turn of a user; `None` if too many are remembered.
    pub(super) fn of(&self, user: &UserId, now: Instant) -> Option<Arc<AsyncMutex<Turn>>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(user) {
            return Some(Arc::clone(turn));
        }
        if turns.len() >= MOST {
            // What cannot be locked is in use, and so is what someone else knows of.
            turns.retain(|_, turn| {
                Arc::strong_count(turn) > 1 || turn.try_lock().map_or(true, |turn| !turn.is_due(now))
            });
            if turns.len() >= MOST {
                return None;
            }
        }
        Some(Arc::clone(turns.entry(user.clone()).or_default()))
    }
}

impl Turn {
    /// Whether there may be a renewal now, which is then noted as having begun.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let due = self.is_due(now);
        if due {
            self.taken = Some(now);
        }
        due
    }

    fn is_due(&self, now: Instant) -> bool {
        self.taken.is_none_or(|at| now.saturating_duration_since(at) >= BETWEEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(renewals: &Renewals, user: usize, now: Instant) -> Option<bool> {
        let turn = renewals.of(&UserId(user.to_string().into()), now)?;
        let mut turn = turn.try_lock().expect("nobody else has it");
        Some(turn.take(now))
    }

    #[test]
    fn a_user_has_one_renewal_a_minute_and_others_have_their_own() {
        let (renewals, start) = (Renewals::default(), Instant::now());
        assert_eq!(take(&renewals, 1, start), Some(true));
        assert_eq!(take(&renewals, 1, start), Some(false));
        assert_eq!(take(&renewals, 2, start), Some(true));
        assert_eq!(take(&renewals, 1, start + BETWEEN), Some(true));
    }

    #[test]
    fn the_users_that_are_remembered_are_bounded() {
        let (renewals, start) = (Renewals::default(), Instant::now());
        for user in 0..MOST {
            assert_eq!(take(&renewals, user, start), Some(true));
        }
        assert_eq!(take(&renewals, MOST, start), None);
        assert_eq!(take(&renewals, 0, start), Some(false), "known ones keep their turn");
        assert_eq!(take(&renewals, MOST, start + BETWEEN), Some(true));
    }
}
