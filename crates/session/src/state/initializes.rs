//! The last `initialize` of each grant, for its requests without a session id.
//!
//! With records this is a cache of them: it holds keys only, and is filled by openings and by
//! requests that have read the records. Without records it is all there is. It is bounded, and
//! forgets the grant that was noted first.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::{
    ports::{GrantId, RevokedSubject, SessionKey, Snapshot, UserId},
    sync::{Mutex, lock},
};

/// The number of grants that are remembered.
const MAX_GRANTS: usize = 4096;

/// Nothing else is locked under its lock.
#[derive(Debug, Default)]
pub(crate) struct Initializes(Mutex<HashMap<GrantId, Entry>>);

/// What is known of the last `initialize` of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownInitialize {
    /// The session that it has opened; `None` if the grant has never initialized.
    pub(crate) key: Option<SessionKey>,
    /// `None` with records.
    pub(crate) snapshot: Option<Snapshot>,
}

#[derive(Debug)]
struct Entry {
    known: KnownInitialize,
    user: UserId,
    noted: Instant,
}

impl Initializes {
    pub(crate) fn of(&self, grant: &GrantId) -> Option<KnownInitialize> {
        lock(&self.0).get(grant).map(|entry| entry.known.clone())
    }

    /// Notes an opening.
    pub(crate) fn set(&self, grant: &GrantId, user: &UserId, known: KnownInitialize, now: Instant) {
        insert(&mut lock(&self.0), grant, user, known, now);
    }

    /// Notes what the records have, unless something else than `before` is known by now.
    pub(crate) fn refresh(
        &self,
        grant: &GrantId,
        user: &UserId,
        before: Option<&KnownInitialize>,
        loaded: KnownInitialize,
        now: Instant,
    ) {
        let mut grants = lock(&self.0);
        if grants.get(grant).map(|entry| &entry.known) == before {
            insert(&mut grants, grant, user, loaded, now);
        }
    }

    pub(crate) fn forget(&self, subject: &RevokedSubject) {
        let mut grants = lock(&self.0);
        match subject {
            RevokedSubject::Grant(grant) => drop(grants.remove(grant)),
            RevokedSubject::User(user) => grants.retain(|_, entry| entry.user != *user),
        }
    }
}

fn insert(grants: &mut HashMap<GrantId, Entry>, grant: &GrantId, user: &UserId, known: KnownInitialize, now: Instant) {
    if grants.len() >= MAX_GRANTS && !grants.contains_key(grant) {
        let oldest = grants.iter().min_by_key(|(_, entry)| entry.noted);
        if let Some(oldest) = oldest.map(|(grant, _)| grant.clone()) {
            grants.remove(&oldest);
        }
    }
    let entry = Entry {
        known,
        user: user.clone(),
        noted: now,
    };
    grants.insert(grant.clone(), entry);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::permutations::once;

    fn grant(name: &str) -> GrantId {
        GrantId(name.into())
    }

    fn known(key: u8) -> KnownInitialize {
        KnownInitialize {
            key: Some(SessionKey([key; 32])),
            snapshot: None,
        }
    }

    #[test]
    fn number_of_grants_is_bounded_and_the_oldest_is_forgotten() {
        once(|| {
            let (start, user) = (Instant::now(), UserId("ann".into()));
            let initializes = Initializes::default();
            for n in 0..=MAX_GRANTS {
                let now = start + Duration::from_secs(u64::try_from(n).unwrap());
                initializes.set(&grant(&n.to_string()), &user, known(1), now);
            }
            assert_eq!(lock(&initializes.0).len(), MAX_GRANTS);
            assert_eq!(
                (initializes.of(&grant("0")), initializes.of(&grant("1"))),
                (None, Some(known(1)))
            );
        });
    }

    #[test]
    fn opening_while_the_records_are_read_is_kept() {
        once(|| {
            let (now, user, ann) = (Instant::now(), UserId("ann".into()), grant("a"));
            let initializes = Initializes::default();
            let before = initializes.of(&ann);
            initializes.set(&ann, &user, known(2), now);
            initializes.refresh(&ann, &user, before.as_ref(), known(1), now);
            assert_eq!(initializes.of(&ann), Some(known(2)));
            initializes.refresh(&ann, &user, Some(&known(2)), known(3), now);
            assert_eq!(initializes.of(&ann), Some(known(3)));
        });
    }

    #[test]
    fn revoked_grants_are_forgotten() {
        once(|| {
            let (now, ann, bob) = (Instant::now(), UserId("ann".into()), UserId("bob".into()));
            let initializes = Initializes::default();
            for (name, user) in [("a", &ann), ("b", &ann), ("c", &bob)] {
                initializes.set(&grant(name), user, known(1), now);
            }
            let left = || ["a", "b", "c"].map(|name| initializes.of(&grant(name)).is_some());
            initializes.forget(&RevokedSubject::Grant(grant("a")));
            assert_eq!(left(), [false, true, true]);
            initializes.forget(&RevokedSubject::User(ann.clone()));
            assert_eq!(left(), [false, false, true]);
        });
    }
}
