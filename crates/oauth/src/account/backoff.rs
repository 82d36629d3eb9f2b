//! When a failed renewal may be tried again.
//!
//! Many requests of a user come while a renewal fails, and each needs the token. Only the first
//! asks Forgejo; the others get its error until a wait is over, which doubles with each failure of
//! the user. While Forgejo as a whole does not answer, all users together ask once a second.
//!
//! The state machine takes the time as an argument.

use std::{collections::HashMap, time::Duration};

use super::AccountError;
use crate::{ids::UserId, ports::UpstreamError};

/// The waits of users, and the one of all of them.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    users: HashMap<UserId, Failure>,
    outage: Option<Failure>,
}

/// The part that has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// Forgejo as a whole. It may have said for how long.
    Forgejo { retry_after: Option<Duration> },
    /// The renewal of this user.
    User,
}

#[derive(Clone, Debug)]
struct Failure {
    count: u32,
    /// The time of the next attempt.
    next: Duration,
    error: AccountError,
}

/// The first wait of a user.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait of a user.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The wait between two requests of any users during an outage.
const OUTAGE_WAIT: Duration = Duration::from_secs(1);
/// The longest wait that Forgejo can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);

impl Backoff {
    /// Allows an attempt.
    ///
    /// # Errors
    ///
    /// The error of the last attempt, until its wait is over.
    pub(super) fn check(&mut self, user: UserId, now: Duration) -> Result<(), AccountError> {
        let waiting = |failure: &&Failure| now < failure.next;
        if let Some(failure) = self.users.get(&user).filter(waiting) {
            return Err(failure.error.clone());
        }
        if let Some(failure) = &mut self.outage {
            if now < failure.next {
                return Err(failure.error.clone());
            }
            // This attempt is the one of this second.
            failure.next = now + OUTAGE_WAIT;
        }
        Ok(())
    }

    /// Records a failed attempt. Returns `true` for the first one after a success.
    pub(super) fn fail(&mut self, user: UserId, failed: Failed, error: &AccountError, now: Duration) -> bool {
        let known = match failed {
            Failed::User => self.users.get(&user),
            Failed::Forgejo { .. } => self.outage.as_ref(),
        };
        let count = known.map_or(0, |failure| failure.count);
        let wait = match failed {
            Failed::User => (FIRST_WAIT * 2_u32.pow(count.min(6))).min(LONGEST_WAIT),
            // The first request after the outage ends it for all.
            Failed::Forgejo { retry_after: None } => OUTAGE_WAIT,
            Failed::Forgejo {
                retry_after: Some(asked),
            } => asked.clamp(OUTAGE_WAIT, LONGEST_RETRY_AFTER),
        };
        let failure = Failure {
            count: count.saturating_add(1),
            // A wait that Forgejo has asked for stays.
            next: known.map_or(Duration::ZERO, |known| known.next).max(now + wait),
            error: error.clone(),
        };
        match failed {
            Failed::User => {
                self.users.retain(|_, failure| now < failure.next + LONGEST_WAIT);
                self.users.insert(user, failure);
            }
            Failed::Forgejo { .. } => self.outage = Some(failure),
        }
        count == 0
    }

    /// Records a renewal. Returns the number of failures of an outage that it ends.
    pub(super) fn succeed(&mut self, user: UserId) -> Option<u32> {
        self.users.remove(&user);
        self.end_outage()
    }

    /// Records that Forgejo answers, whatever it says. Returns the number of failures of an outage
    /// that this ends.
    pub(super) fn end_outage(&mut self) -> Option<u32> {
        self.outage.take().map(|outage| outage.count)
    }
}

impl Failed {
    /// The wait that Forgejo has asked for, as an error of the upstream tells it.
    pub(super) fn of(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::Busy { retry_after } => Self::Forgejo {
                retry_after: Some(*retry_after),
            },
            UpstreamError::Unavailable(_) => Self::Forgejo { retry_after: None },
            UpstreamError::Refused(_)
            | UpstreamError::Unconfirmed(_)
            | UpstreamError::LockedOut(_)
            | UpstreamError::Misconfigured(_)
            | UpstreamError::Unexpected(_) => Self::User,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: UserId = UserId(1);
    const TWO: UserId = UserId(2);
    const OUTAGE: Failed = Failed::Forgejo { retry_after: None };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn error() -> AccountError {
        AccountError::transient("as scripted")
    }

    #[test]
    fn wait_of_a_user_doubles_and_is_limited() {
        let (mut backoff, mut now) = (Backoff::default(), seconds(1000));
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            backoff.check(ONE, now).expect("an attempt");
            backoff.fail(ONE, Failed::User, &error(), now);
            assert!(
                backoff
                    .check(ONE, now + seconds(wait) - Duration::from_millis(1))
                    .is_err()
            );
            assert!(backoff.check(TWO, now).is_ok(), "others do not wait");
            now += seconds(wait);
        }
        backoff.check(ONE, now).expect("an attempt");
        assert_eq!(backoff.succeed(ONE), None);
        assert!(
            backoff.fail(ONE, Failed::User, &error(), now),
            "the first after a success"
        );
        assert!(backoff.check(ONE, now + seconds(1)).is_ok());
    }

    #[test]
    fn all_users_ask_once_a_second_during_an_outage() {
        let (mut backoff, start) = (Backoff::default(), seconds(1000));
        assert!(backoff.fail(UserId(0), OUTAGE, &error(), start));
        let mut attempts = 0;
        for now in (0..10_000).step_by(50).map(Duration::from_millis) {
            for user in 1..100 {
                if backoff.check(UserId(user), start + now).is_ok() {
                    attempts += 1;
                    assert!(!backoff.fail(UserId(user), OUTAGE, &error(), start + now));
                }
            }
        }
        assert_eq!(attempts, 9);
        assert_eq!(backoff.succeed(ONE), Some(10));
        assert!(backoff.check(TWO, start + seconds(10)).is_ok());
    }

    #[test]
    fn wait_that_forgejo_asks_for_is_kept() {
        let (mut backoff, now) = (Backoff::default(), seconds(1000));
        let busy = |wait| Failed::Forgejo {
            retry_after: Some(seconds(wait)),
        };
        backoff.fail(ONE, busy(30), &error(), now);
        assert!(backoff.check(TWO, now + seconds(29)).is_err());
        assert!(backoff.check(TWO, now + seconds(30)).is_ok());
        backoff.fail(ONE, busy(1_000_000), &error(), now);
        assert!(
            backoff.check(TWO, now + seconds(300)).is_ok(),
            "for no longer than is sensible"
        );
    }
}
