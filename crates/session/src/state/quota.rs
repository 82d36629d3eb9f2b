//! The quota: how many sessions there may be, in all and for one user.
//!
//! A [`SessionPermit`] is acquired before anything is spawned and released when it is dropped, so
//! that the counts are exact however many requests race. The user's own limit is checked first, so
//! that a user who is at it learns nothing about others.

use std::{collections::HashMap, sync::Arc};

use crate::{
    ports::{QuotaScope, UserId},
    sync::{Mutex, lock},
};

/// Counts the permits in use.
#[derive(Debug)]
pub(crate) struct Quota {
    total: usize,
    per_user: usize,
    // `in_use` is the sum of the counts in `by_user`, and no count is zero.
    counts: Mutex<Counts>,
}

/// The right to one session of a user. A session shares it with the keepers of its servers; the
/// last one to drop it releases it.
#[derive(Debug)]
pub(crate) struct SessionPermit {
    quota: Arc<Quota>,
    user: UserId,
}

#[derive(Debug, Default)]
struct Counts {
    in_use: usize,
    by_user: HashMap<UserId, usize>,
}

impl Quota {
    pub(crate) fn new(total: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_user,
            counts: Mutex::default(),
        })
    }

    /// Acquires a permit, or says which limit is reached.
    pub(crate) fn acquire(self: &Arc<Self>, user: &UserId) -> Result<SessionPermit, QuotaScope> {
        let mut counts = lock(&self.counts);
        let held = counts.by_user.get(user).copied().unwrap_or(0);
        if held >= self.per_user {
            return Err(QuotaScope::User);
        }
        if counts.in_use >= self.total {
            return Err(QuotaScope::Total);
        }
        Ok(self.add(&mut counts, user))
    }

    /// Takes a permit beyond the limits, for a server that a rotation has replaced: admission of
    /// new sessions sees it, and no rotation is refused.
    pub(crate) fn force(self: &Arc<Self>, user: &UserId) -> SessionPermit {
        self.add(&mut lock(&self.counts), user)
    }

    fn add(self: &Arc<Self>, counts: &mut Counts, user: &UserId) -> SessionPermit {
        counts.in_use += 1;
        *counts.by_user.entry(user.clone()).or_default() += 1;
        SessionPermit {
            quota: Arc::clone(self),
            user: user.clone(),
        }
    }

    /// The number of permits in use.
    pub(crate) fn in_use(&self) -> usize {
        lock(&self.counts).in_use
    }
}

impl Drop for SessionPermit {
    fn drop(&mut self) {
        let mut counts = lock(&self.quota.counts);
        counts.in_use = counts.in_use.saturating_sub(1);
        if let Some(held) = counts.by_user.get_mut(&self.user) {
            *held -= 1;
            if *held == 0 {
                counts.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::permutations::once;

    fn user(name: &str) -> UserId {
        UserId(name.into())
    }

    #[test]
    fn users_own_limit_is_reported_before_the_total() {
        once(|| {
            let quota = Quota::new(2, 1);
            let _a = quota.acquire(&user("a")).unwrap();
            let _b = quota.acquire(&user("b")).unwrap();
            assert_eq!(quota.acquire(&user("a")).unwrap_err(), QuotaScope::User);
            assert_eq!(quota.acquire(&user("c")).unwrap_err(), QuotaScope::Total);
        });
    }

    #[test]
    fn dropped_permit_is_free_again_and_leaves_no_count_behind() {
        once(|| {
            let quota = Quota::new(1, 1);
            for _ in 0..3 {
                let permit = quota.acquire(&user("a")).unwrap();
                assert_eq!(quota.in_use(), 1);
                drop(permit);
            }
            assert_eq!(quota.in_use(), 0);
            assert!(lock(&quota.counts).by_user.is_empty());
        });
    }
}
