//! Recent revocations, for requests that were authenticated before a revocation and arrive after
//! it.
//!
//! A bearer is checked when the head of a request is there. The body may take its time, and the
//! grant may end meanwhile: its sessions are ended then, but one that is opened afterwards would
//! live on. So an opening first inserts its session into the table and then checks here, while a
//! revocation is first recorded here and then searches the table: one of the two sees the other.
//!
//! The list is exact and bounded in number and age. Forgetting an entry keeps its time, and callers
//! authenticated before the newest forgotten one count as revoked, which costs a client one more
//! check of its bearer.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::{
    ports::{AuthenticatedAt, GrantId, RevokedSubject, UserId},
    sync::{Mutex, lock},
};

/// The number of revocations that are remembered.
const MAX_REVOCATIONS: usize = 4096;
/// The time for which they are remembered. No request takes longer to arrive.
const RETENTION: Duration = Duration::from_secs(600);

/// The recent revocations.
#[derive(Debug, Default)]
pub(crate) struct Revocations(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    latest: HashMap<RevokedSubject, Instant>,
    newest_forgotten: Option<Instant>,
}

impl Revocations {
    pub(crate) fn record(&self, subject: RevokedSubject, now: Instant) {
        let Recent {
            latest,
            newest_forgotten,
        } = &mut *lock(&self.0);
        latest.insert(subject, now);
        let oldest = latest.values().min().copied();
        let surplus = oldest.filter(|_| latest.len() > MAX_REVOCATIONS);
        latest.retain(|_, at| {
            let forget = surplus == Some(*at) || now.saturating_duration_since(*at) > RETENTION;
            if forget {
                *newest_forgotten = (*newest_forgotten).max(Some(*at));
            }
            !forget
        });
    }

    /// True if the grant or the user may have been revoked since the bearer was checked.
    pub(crate) fn revoked_since(&self, checked: AuthenticatedAt, grant: &GrantId, user: &UserId) -> bool {
        let recent = lock(&self.0);
        let latest = |subject| recent.latest.get(&subject).copied();
        [
            latest(RevokedSubject::Grant(grant.clone())),
            latest(RevokedSubject::User(user.clone())),
            recent.newest_forgotten,
        ]
        .into_iter()
        .flatten()
        .any(|at| at >= checked.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::permutations::once;

    fn grant(name: &str) -> GrantId {
        GrantId(name.into())
    }

    fn user() -> UserId {
        UserId("ann".into())
    }

    #[test]
    fn only_revocations_after_the_check_count() {
        once(|| {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let revocations = Revocations::default();
            revocations.record(RevokedSubject::Grant(grant("a")), at(5));
            revocations.record(RevokedSubject::User(UserId("bob".into())), at(5));
            let since = |seconds, name| revocations.revoked_since(AuthenticatedAt(at(seconds)), &grant(name), &user());
            assert!(since(4, "a") && since(5, "a"));
            assert!(!since(6, "a") && !since(4, "b"));
            revocations.record(RevokedSubject::User(user()), at(7));
            assert!(since(6, "a") && since(7, "b") && !since(8, "b"));
        });
    }

    #[test]
    fn check_before_a_forgotten_revocation_counts_as_revoked() {
        once(|| {
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let revocations = Revocations::default();
            revocations.record(RevokedSubject::Grant(grant("a")), at(1));
            for n in 0..u64::try_from(MAX_REVOCATIONS).unwrap() {
                revocations.record(RevokedSubject::Grant(grant(&n.to_string())), at(3));
            }
            assert_eq!(lock(&revocations.0).latest.len(), MAX_REVOCATIONS);
            let since = |seconds| revocations.revoked_since(AuthenticatedAt(at(seconds)), &grant("z"), &user());
            assert!(since(1) && !since(2));
            revocations.record(RevokedSubject::Grant(grant("a")), at(4) + RETENTION);
            assert_eq!(lock(&revocations.0).latest.len(), 1);
            assert!(since(3) && !since(4));
        });
    }
}
