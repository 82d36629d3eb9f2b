//! What has been revoked of late, for requests that were let in before and arrive after.
//!
//! A bearer is checked when the head of a request is there; the body may take its time, and its grant may end meanwhile. The
//! sessions that are there then are ended, but one that is opened afterwards would live on. So an opening first puts its session
//! into the table and then asks here; a revocation is first noted here and then looks into the table. Whichever comes first,
//! one of the two sees the other.
//!
//! Exact, and bounded in number and age: what is forgotten leaves the time of the newest thing forgotten behind, and who
//! was checked before that is taken as revoked. That costs a client a new check of its bearer, no more.

use std::{
    collections::{HashMap, VecDeque},
    sync::PoisonError,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    ports::{AuthenticatedAt, GrantId, UserId},
    sync::{Mutex, MutexGuard},
};

/// How many revocations are remembered.
const MOST: usize = 4096;
/// For how long. No request takes that long to arrive.
const KEEP: Duration = Duration::from_secs(600);

/// The revocations of late.
#[derive(Debug, Default)]
pub(crate) struct Revocations(Mutex<Noted>);

/// Whose sessions were ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Whose {
    Grant(GrantId),
    User(UserId),
}

#[derive(Debug, Default)]
struct Noted {
    // Every key of `latest` is in `order` with the time that it has there; `order` may hold earlier times of it.
    latest: HashMap<Whose, Instant>,
    order: VecDeque<(Instant, Whose)>,
    forgotten: Option<Instant>,
}

impl Revocations {
    pub(crate) fn note(&self, whose: Whose, now: Instant) {
        let mut noted = self.noted();
        noted.latest.insert(whose.clone(), now);
        noted.order.push_back((now, whose));
        while let Some((at, _)) = noted.order.front() {
            let old = now.saturating_duration_since(*at) > KEEP;
            if !old && noted.order.len() <= MOST {
                break;
            }
            noted.forget_first();
        }
    }

    /// Whether a caller may have been revoked after the check.
    pub(crate) fn since(&self, checked: AuthenticatedAt, grant: &GrantId, user: &UserId) -> bool {
        let noted = self.noted();
        let of = |whose| noted.latest.get(&whose).copied();
        [
            of(Whose::Grant(grant.clone())),
            of(Whose::User(user.clone())),
            noted.forgotten,
        ]
        .into_iter()
        .flatten()
        .any(|at| at >= checked.0)
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted {
    fn forget_first(&mut self) {
        if let Some((at, whose)) = self.order.pop_front() {
            if self.latest.get(&whose) == Some(&at) {
                self.latest.remove(&whose);
            }
            self.forgotten = self.forgotten.max(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutations::once;

    fn grant(name: &str) -> GrantId {
        GrantId(name.into())
    }

    fn user() -> UserId {
        UserId("ann".into())
    }

    #[test]
    fn only_what_was_revoked_after_the_check_counts() {
        once(|| {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let revocations = Revocations::default();
            revocations.note(Whose::Grant(grant("a")), at(5));
            revocations.note(Whose::User(UserId("bob".into())), at(5));
            let since = |seconds, name| revocations.since(AuthenticatedAt(at(seconds)), &grant(name), &user());
            assert!(since(4, "a") && since(5, "a"));
            assert!(!since(6, "a") && !since(4, "b"));
            revocations.note(Whose::User(user()), at(7));
            assert!(since(6, "a") && since(7, "b") && !since(8, "b"));
        });
    }

    #[test]
    fn who_was_checked_before_something_forgotten_counts_as_revoked() {
        once(|| {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let revocations = Revocations::default();
            revocations.note(Whose::Grant(grant("a")), at(1));
            for n in 0..u64::try_from(MOST).unwrap() {
                revocations.note(Whose::Grant(grant(&n.to_string())), at(3));
            }
            assert_eq!(revocations.noted().order.len(), MOST);
            assert_eq!(revocations.noted().latest.len(), MOST);
            let since = |seconds| revocations.since(AuthenticatedAt(at(seconds)), &grant("z"), &user());
            assert!(since(1) && !since(2));
            revocations.note(Whose::Grant(grant("a")), at(4) + KEEP);
            assert_eq!(revocations.noted().latest.len(), 1);
            assert!(since(3) && !since(4));
        });
    }
}
