//! The bytes of request bodies that are in memory at once.
//!
//! There are two budgets: one for authenticated requests to `/mcp`, and a smaller one for all that
//! strangers may send, so an unfinished body of a stranger takes nothing from users. Each owner has
//! a share of a budget at most. Bytes count as they arrive, not as they are announced, until the
//! request is answered. A body that exceeds the budget is refused.
//!
//! The token endpoint belongs to those that strangers may use, and signed-in users need it. Its
//! requests are small, so the first bytes of each body are free there: strangers who use up their
//! budget refuse no token. The number of connections and streams bounds the free bytes.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{config::HttpLimits, http_error::HttpError, ports::GrantKey, usage::Usage};

/// The share of one grant in the budget of users, as a divisor.
const GRANT_SHARE: usize = 4;
/// The size of the budget of strangers in relation to that of users, as a divisor.
const STRANGERS_SHARE: usize = 4;

/// The bytes of each body of a stranger that do not count.
const FREE_BYTES: usize = 1024;

/// A budget of bytes.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    limit: usize,
    /// The first bytes of each body, which do not count.
    free: usize,
    /// Maximum bytes of one owner.
    share: usize,
    used: Mutex<Usage<Option<GrantKey>>>,
}

/// The bytes of one body, until it is dropped.
#[derive(Debug)]
pub(crate) struct BodyReservation {
    budget: Arc<BodyBudget>,
    owner: Option<GrantKey>,
    /// The bytes that it may still have for free.
    free: usize,
    bytes: usize,
}

impl BodyBudget {
    /// The budget of authenticated requests. The share of a grant holds one body at least.
    pub(crate) fn of_users(limits: &HttpLimits) -> Arc<Self> {
        let limit = limits.bodies.max(limits.mcp_body);
        Self::new(limit, (limit / GRANT_SHARE).max(limits.mcp_body), 0)
    }

    /// The budget of everyone else.
    pub(crate) fn of_strangers(limits: &HttpLimits) -> Arc<Self> {
        let limit = (limits.bodies / STRANGERS_SHARE).max(limits.oauth_body);
        Self::new(limit, limit, FREE_BYTES)
    }

    fn new(limit: usize, share: usize, free: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            free,
            share,
            used: Mutex::default(),
        })
    }

    /// A reservation of no bytes. Strangers are one owner.
    pub(crate) fn reservation(self: &Arc<Self>, owner: Option<GrantKey>) -> BodyReservation {
        BodyReservation {
            budget: Arc::clone(self),
            owner,
            free: self.free,
            bytes: 0,
        }
    }
}

impl BodyReservation {
    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// [`HttpError::BodyBudgetExceeded`] if the budget or the share of the owner lacks them.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), HttpError> {
        let free = self.free.min(bytes);
        self.free -= free;
        let bytes = bytes - free;
        if bytes == 0 {
            return Ok(());
        }
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        let (own, total) = (
            used.of(&self.owner).saturating_add(bytes),
            used.total().saturating_add(bytes),
        );
        if own > self.budget.share || total > self.budget.limit {
            return Err(HttpError::BodyBudgetExceeded);
        }
        used.add(&self.owner, bytes);
        drop(used);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.remove(&self.owner, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_return_to_the_budget() {
        let budget = BodyBudget::new(10, 10, 0);
        let (mut first, mut second) = (budget.reservation(None), budget.reservation(None));
        assert_eq!(first.grow(6), Ok(()));
        assert_eq!(second.grow(5), Err(HttpError::BodyBudgetExceeded));
        assert_eq!(second.grow(4), Ok(()));
        assert_eq!(first.grow(1), Err(HttpError::BodyBudgetExceeded));
        drop(first);
        assert_eq!(second.grow(6), Ok(()));
        drop(second);
        assert!(budget.used.lock().unwrap().is_empty());
    }

    #[test]
    fn small_bodies_of_strangers_need_no_budget() {
        let budget = BodyBudget::new(10, 10, 4);
        let (mut large, mut small) = (budget.reservation(None), budget.reservation(None));
        assert_eq!(large.grow(14), Ok(()));
        assert_eq!(small.grow(3), Ok(()));
        assert_eq!(small.grow(2), Err(HttpError::BodyBudgetExceeded));
        drop((large, small));
        assert!(budget.used.lock().unwrap().is_empty());
    }

    #[test]
    fn one_grant_has_a_share_only() {
        let budget = BodyBudget::new(10, 4, 0);
        let of = |name: &str| budget.reservation(Some(GrantKey(name.into())));
        let (mut first, mut second, mut other) = (of("a"), of("a"), of("b"));
        assert_eq!(first.grow(3), Ok(()));
        assert_eq!(second.grow(2), Err(HttpError::BodyBudgetExceeded));
        assert_eq!(other.grow(4), Ok(()));
    }
}
