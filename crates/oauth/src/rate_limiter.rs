//! A rate limiter: the generic cell rate algorithm (a leaky bucket) for each key.
//!
//! A key has one instant in memory. The limiter takes the time as an argument and runs no task.
//! Keys are clients, grants and users, never addresses: the users of an AI platform share few
//! addresses, and an attacker has many.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Limits the requests of each key to a burst, and one more after each interval.
#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    burst: u32,
    interval: Duration,
    /// The theoretical arrival time of each key's next request, on a clock that never goes back. A
    /// time in the past carries no information.
    arrivals: Mutex<HashMap<K, Duration>>,
}

/// The time until the next request is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter(pub(crate) Duration);

/// The largest number of keys with recent requests. Requests of further keys are refused.
const MAX_KEYS: usize = 16_384;

impl<K: Eq + Hash> RateLimiter<K> {
    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst,
            interval,
            arrivals: Mutex::default(),
        }
    }

    /// `count` requests a minute, all of which may come at once.
    pub(crate) fn per_minute(count: u32) -> Self {
        Self::new(count, Duration::from_secs(60) / count.max(1))
    }

    /// Counts a request of a key. A request that is refused does not count.
    pub(crate) fn check<Q>(&self, key: &Q, now: Duration) -> Result<(), RetryAfter>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let interval = self.interval;
        let window = interval * self.burst;
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.len() >= MAX_KEYS && !arrivals.contains_key(key) {
            arrivals.retain(|_, arrival| *arrival > now);
            if arrivals.len() >= MAX_KEYS {
                return Err(RetryAfter(interval));
            }
        }
        let arrival = arrivals.get(key).map_or(now, |arrival| now.max(*arrival));
        let next = arrival + interval;
        let excess = next.saturating_sub(now + window);
        let is_allowed = excess.is_zero();
        arrivals.insert(key.to_owned(), if is_allowed { next } else { arrival });
        is_allowed.then_some(()).ok_or(RetryAfter(excess))
    }
}

impl RetryAfter {
    /// The value of the `Retry-After` header: whole seconds, rounded up.
    pub(crate) fn seconds(self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_000_000 + seconds)
    }

    fn limiter(burst: u32, every: u64) -> RateLimiter<String> {
        RateLimiter::new(burst, Duration::from_secs(every))
    }

    #[test]
    fn a_burst_is_followed_by_one_request_per_interval() {
        let limiter = limiter(3, 10);
        for _ in 0..3 {
            assert_eq!(limiter.check("a", at(0)), Ok(()));
        }
        assert_eq!(limiter.check("a", at(0)), Err(RetryAfter(Duration::from_secs(10))));
        assert_eq!(limiter.check("a", at(4)), Err(RetryAfter(Duration::from_secs(6))));
        assert_eq!(limiter.check("a", at(10)), Ok(()));
        assert!(limiter.check("a", at(10)).is_err());
        for _ in 0..3 {
            assert_eq!(limiter.check("a", at(1000)), Ok(()), "an idle key gets its burst back");
        }
        assert!(limiter.check("a", at(1000)).is_err());
    }

    #[test]
    fn keys_have_separate_limits() {
        let limiter = limiter(1, 10);
        assert_eq!(limiter.check("a", at(0)), Ok(()));
        assert_eq!(limiter.check("b", at(0)), Ok(()));
        assert!(limiter.check("a", at(0)).is_err());
    }

    #[test]
    fn idle_keys_are_evicted_for_new_ones() {
        let limiter = limiter(1, 10);
        for n in 0..MAX_KEYS {
            assert_eq!(limiter.check(n.to_string().as_str(), at(0)), Ok(()));
        }
        assert!(limiter.check("one more", at(1)).is_err());
        assert_eq!(limiter.check("one more", at(11)), Ok(()));
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        assert_eq!(RetryAfter(Duration::from_millis(1)).seconds(), 1);
        assert_eq!(RetryAfter(Duration::from_secs(2)).seconds(), 2);
    }

    #[test]
    fn a_limit_per_minute_may_be_used_at_once() {
        let limiter = RateLimiter::<String>::per_minute(60);
        assert_eq!((limiter.burst, limiter.interval), (60, Duration::from_secs(1)));
    }
}
