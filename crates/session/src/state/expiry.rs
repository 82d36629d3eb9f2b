//! The expiry of a backend's credential, and the time at which the backend has to be replaced.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::ports::UserId;

/// A time so far away that it cannot be added to the present is moved to this distance.
const FAR_FUTURE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The end of a credential, on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    pub(crate) at: Instant,
    pub(crate) wall: SystemTime,
}

impl Expiry {
    pub(crate) fn new(wall: SystemTime, wall_now: SystemTime) -> Self {
        let left = wall.duration_since(wall_now).unwrap_or_default();
        Self {
            at: Instant::now() + left.min(FAR_FUTURE),
            wall,
        }
    }

    /// The time to rotate: `lead` before the expiry, or half of what is left if that is less. Users
    /// are spread over a tenth of the lead, so that not all are due at once.
    pub(crate) fn rotate_at(&self, lead: Duration, user: &UserId, now: Instant) -> Instant {
        let left = self.at.saturating_duration_since(now);
        let lead = lead.min(left / 2);
        now + left.saturating_sub(lead + (lead / 10).mul_f64(jitter(user)))
    }
}

/// A number from 0 to 1, always the same for a user: the sessions of one user are due together.
fn jitter(user: &UserId) -> f64 {
    let mut hasher = DefaultHasher::new();
    user.hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() & 0x3ff).unwrap_or_default()) / 1023.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_spread_and_each_keeps_its_jitter() {
        let users: Vec<UserId> = (0..100).map(|i| UserId(i.to_string().into())).collect();
        let shares: Vec<f64> = users.iter().map(jitter).collect();
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.2) && shares.iter().any(|share| *share > 0.8));
        assert_eq!(shares, users.iter().map(jitter).collect::<Vec<_>>());
    }
}
