//! How often something may be done: a leaky bucket for each key.
//!
//! A bucket is one instant, up to which its turns are taken (the generic cell rate algorithm). It takes the time as an
//! argument and keeps no task. Keys are clients and grants, never addresses: the users of one AI platform come from few
//! addresses, and an attacker has many.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// A rate: so many at once, and one more after each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    burst: u32,
    every: Duration,
}

/// Buckets of one rate.
#[derive(Debug)]
pub(crate) struct RateLimiter<K> {
    rate: Rate,
    /// Until when the turns of a key are taken. An instant that has passed says nothing and may be taken out.
    taken: Mutex<HashMap<K, SystemTime>>,
}

/// How long to wait before the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait(pub(crate) Duration);

/// How many keys there are at most that are not at rest. A further one has to wait.
const MAX_KEYS: usize = 16_384;

impl Rate {
    /// `burst` at once, one more each `every`.
    pub(crate) const fn new(burst: u32, every: Duration) -> Self {
        Self { burst, every }
    }

    /// `count` a minute, all at once if it has to be.
    pub(crate) fn per_minute(count: u32) -> Self {
        Self::new(count, Duration::from_secs(60) / count.max(1))
    }
}

impl<K: Eq + Hash> RateLimiter<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            taken: Mutex::default(),
        }
    }

    /// Takes a turn of a key, or says how long to wait. A refusal takes nothing.
    pub(crate) fn take<Q>(&self, key: &Q, now: SystemTime) -> Result<(), Wait>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    {
        let Rate { burst, every } = self.rate;
        let window = every * burst;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= MAX_KEYS && !taken.contains_key(key) {
            taken.retain(|_, until| *until > now);
            if taken.len() >= MAX_KEYS {
                return Err(Wait(every));
            }
        }
        // Never further ahead than the window: a wall clock that has gone back must not lock anyone out.
        let until = taken.get(key).map_or(now, |until| (*until).clamp(now, now + window));
        let next = until + every;
        match next.duration_since(now + window) {
            Ok(over) if !over.is_zero() => {
                taken.insert(key.to_owned(), until);
                Err(Wait(over))
            }
            _ => {
                taken.insert(key.to_owned(), next);
                Ok(())
            }
        }
    }
}

impl Wait {
    /// The value of `Retry-After`: whole seconds, rounded up.
    pub(crate) fn seconds(self) -> u64 {
        self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn at(seconds: u64) -> SystemTime {
        START + Duration::from_secs(1_000_000 + seconds)
    }

    fn limiter(burst: u32, every: u64) -> RateLimiter<String> {
        RateLimiter::new(Rate::new(burst, Duration::from_secs(every)))
    }

    #[test]
    fn a_burst_and_then_one_each_interval() {
        let limiter = limiter(3, 10);
        for _ in 0..3 {
            assert_eq!(limiter.take("a", at(0)), Ok(()));
        }
        assert_eq!(limiter.take("a", at(0)), Err(Wait(Duration::from_secs(10))));
        assert_eq!(limiter.take("a", at(4)), Err(Wait(Duration::from_secs(6))));
        assert_eq!(limiter.take("a", at(10)), Ok(()));
        assert!(limiter.take("a", at(10)).is_err());
        for _ in 0..3 {
            assert_eq!(limiter.take("a", at(1000)), Ok(()), "a rest gives the burst back");
        }
        assert!(limiter.take("a", at(1000)).is_err());
    }

    #[test]
    fn keys_do_not_share() {
        let limiter = limiter(1, 10);
        assert_eq!(limiter.take("a", at(0)), Ok(()));
        assert_eq!(limiter.take("b", at(0)), Ok(()));
        assert!(limiter.take("a", at(0)).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let limiter = limiter(2, 10);
        assert_eq!(limiter.take("a", at(1_000_000)), Ok(()));
        assert_eq!(limiter.take("a", at(0)), Err(Wait(Duration::from_secs(10))));
        assert_eq!(limiter.take("a", at(10)), Ok(()));
    }

    #[test]
    fn keys_at_rest_make_room() {
        let limiter = limiter(1, 10);
        for n in 0..MAX_KEYS {
            assert_eq!(limiter.take(n.to_string().as_str(), at(0)), Ok(()));
        }
        assert!(limiter.take("one more", at(1)).is_err());
        assert_eq!(limiter.take("one more", at(11)), Ok(()));
    }

    #[test]
    fn waits_are_told_in_whole_seconds() {
        assert_eq!(Wait(Duration::from_millis(1)).seconds(), 1);
        assert_eq!(Wait(Duration::from_secs(2)).seconds(), 2);
        assert_eq!(Rate::per_minute(60), Rate::new(60, Duration::from_secs(1)));
    }
}
