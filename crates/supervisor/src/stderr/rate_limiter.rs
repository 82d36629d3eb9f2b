//! How often a child may log.
//!
//! A bucket of permissions that fills with time. It is told the time and keeps no clock.

use std::time::Duration;

use tokio::time::Instant;

/// How many seconds' worth of lines may come at once.
const BURST_SECONDS: f64 = 10.0;

/// How often it is told that lines were not logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The permissions of one child.
#[derive(Debug)]
pub(crate) struct LineRateLimiter {
    per_second: f64,
    /// At most [`BURST_SECONDS`] seconds' worth.
    permissions: f64,
    filled: Instant,
    /// LineSplitter that were not logged since it was last told.
    suppressed: u64,
    told: Instant,
}

impl LineRateLimiter {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            permissions: per_second * BURST_SECONDS,
            filled: now,
            suppressed: 0,
            told: now,
        }
    }

    /// Whether one more line may be logged.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.permissions = (self.permissions + gained).min(self.per_second * BURST_SECONDS);
        self.filled = now;
        let allowed = self.permissions >= 1.0;
        if allowed {
            self.permissions -= 1.0;
        } else {
            self.suppressed += 1;
        }
        allowed
    }

    /// How many lines were not logged, if it is time to tell; `last` makes it time.
    pub(crate) fn suppressed(&mut self, now: Instant, last: bool) -> Option<u64> {
        let due = last || now.duration_since(self.told) >= REPORT_INTERVAL;
        if !due || self.suppressed == 0 {
            return None;
        }
        self.told = now;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rate: &mut LineRateLimiter, now: Instant, lines: usize) -> usize {
        (0..lines).filter(|_| rate.allows(now)).count()
    }

    #[test]
    fn a_burst_passes_and_a_flood_is_cut_to_the_rate() {
        let now = Instant::now();
        let mut rate = LineRateLimiter::new(5, now);
        assert_eq!(allowed(&mut rate, now, 1000), 50);
        assert_eq!(allowed(&mut rate, now + Duration::from_secs(2), 1000), 10);
        assert_eq!(allowed(&mut rate, now + Duration::from_secs(3600), 1000), 50);
    }

    #[test]
    fn what_is_not_logged_is_counted_and_told_now_and_then() {
        let now = Instant::now();
        let mut rate = LineRateLimiter::new(1, now);
        allowed(&mut rate, now, 25);
        assert_eq!(rate.suppressed(now, false), None);
        assert_eq!(rate.suppressed(now + REPORT_INTERVAL, false), Some(15));
        assert_eq!(rate.suppressed(now + REPORT_INTERVAL, true), None);
        allowed(&mut rate, now, 2);
        assert_eq!(rate.suppressed(now + REPORT_INTERVAL, true), Some(2));
    }
}
