//! The limit of exchanges at `/mcp`: in all, and of one grant.
//!
//! An exchange is a request from its authentication to the end of its response, so slow calls and
//! open streams count. A grant has a limit well below that of all, so one user who starts calls
//! without end slows no other down. The last part of the total is for grants that have few
//! exchanges: many grants at their limit leave room for the others.

use std::sync::{Arc, Mutex, PoisonError};

use crate::{http_error::HttpError, ports::GrantKey, usage::Usage};

/// The part of the total that is only for grants with few exchanges, as a divisor.
const RESERVE_DIVISOR: usize = 4;
/// The exchanges that a grant may have in the reserve.
const FEW_EXCHANGES: usize = 4;

#[derive(Debug)]
pub(crate) struct ExchangeLimiter {
    total: usize,
    per_grant: usize,
    running: Mutex<Usage<GrantKey>>,
}

/// Counts one exchange until it is dropped.
#[derive(Debug)]
pub(crate) struct ExchangeGuard {
    limiter: Arc<ExchangeLimiter>,
    grant: GrantKey,
}

impl ExchangeLimiter {
    pub(crate) fn new(total: usize, per_grant: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_grant,
            running: Mutex::default(),
        })
    }

    /// Counts another exchange of the grant.
    ///
    /// # Errors
    ///
    /// [`HttpError::TooManyExchanges`] at the limit of the grant, [`HttpError::Overloaded`] at that
    /// of all.
    pub(crate) fn begin(self: &Arc<Self>, grant: GrantKey) -> Result<ExchangeGuard, HttpError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.of(&grant);
        if own >= self.per_grant {
            return Err(HttpError::TooManyExchanges);
        }
        let reserve = self.total / RESERVE_DIVISOR;
        let room = if own < FEW_EXCHANGES {
            self.total
        } else {
            self.total - reserve
        };
        if running.total() >= room {
            return Err(HttpError::Overloaded);
        }
        running.add(&grant, 1);
        drop(running);
        Ok(ExchangeGuard {
            limiter: Arc::clone(self),
            grant,
        })
    }
}

impl Drop for ExchangeGuard {
    fn drop(&mut self) {
        let mut running = self.limiter.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.grant, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(name: &str) -> GrantKey {
        GrantKey(Arc::from(name))
    }

    #[test]
    fn grant_at_its_limit_is_refused_and_others_are_not() {
        let limiter = ExchangeLimiter::new(100, 2);
        let begin = |name| limiter.begin(grant(name));
        let (first, _second) = (begin("a").unwrap(), begin("a").unwrap());
        assert_eq!(begin("a").err(), Some(HttpError::TooManyExchanges));
        let _other = begin("b").unwrap();
        drop(first);
        let _third = begin("a").unwrap();
        assert_eq!(begin("a").err(), Some(HttpError::TooManyExchanges));
    }

    #[test]
    fn reserve_is_for_grants_with_few_exchanges() {
        let limiter = ExchangeLimiter::new(20, 10);
        let begin = |name| limiter.begin(grant(name));
        let mut guards: Vec<_> = (0..15).map(|number| begin(["a", "b"][number % 2]).unwrap()).collect();
        assert_eq!(begin("b").err(), Some(HttpError::Overloaded));
        guards.extend((0..4).map(|_| begin("c").unwrap()));
        assert_eq!(begin("c").err(), Some(HttpError::Overloaded));
        guards.push(begin("d").unwrap());
        assert_eq!(begin("e").err(), Some(HttpError::Overloaded));
        drop(guards);
        assert!(limiter.running.lock().unwrap().is_empty());
    }
}
