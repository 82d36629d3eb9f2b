//! The rate limit of a child's log: a token bucket.
//!
//! The caller passes the time.

use std::time::Duration;

use tokio::time::Instant;

/// Capacity of the bucket, in seconds' worth of lines.
const BURST_SECONDS: f64 = 10.0;

/// Minimum time between reports of suppressed lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct LineRateLimiter {
    per_second: f64,
    /// At most [`BURST_SECONDS`] worth.
    tokens: f64,
    refilled: Instant,
    /// Lines suppressed since the last report.
    suppressed: u64,
    reported: Instant,
}

impl LineRateLimiter {
    /// A full bucket.
    pub(crate) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self {
            per_second,
            tokens: per_second * BURST_SECONDS,
            refilled: now,
            suppressed: 0,
            reported: now,
        }
    }

    /// True if one more line may be logged.
    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        let gained = now.duration_since(self.refilled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + gained).min(self.per_second * BURST_SECONDS);
        self.refilled = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        } else {
            self.suppressed += 1;
        }
        allowed
    }

    /// The number of suppressed lines, if a report is due; a `last` report always is.
    pub(crate) fn suppressed(&mut self, now: Instant, last: bool) -> Option<u64> {
        let due = last || now.duration_since(self.reported) >= REPORT_INTERVAL;
        if !due || self.suppressed == 0 {
            return None;
        }
        self.reported = now;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(limiter: &mut LineRateLimiter, now: Instant, lines: usize) -> usize {
        (0..lines).filter(|_| limiter.allows(now)).count()
    }

    #[test]
    fn burst_passes_and_flood_is_limited_to_the_rate() {
        let now = Instant::now();
        let mut limiter = LineRateLimiter::new(5, now);
        assert_eq!(allowed(&mut limiter, now, 1000), 50);
        assert_eq!(allowed(&mut limiter, now + Duration::from_secs(2), 1000), 10);
        assert_eq!(allowed(&mut limiter, now + Duration::from_secs(3600), 1000), 50);
    }

    #[test]
    fn suppressed_lines_are_counted_and_reported_at_intervals() {
        let now = Instant::now();
        let mut limiter = LineRateLimiter::new(1, now);
        allowed(&mut limiter, now, 25);
        assert_eq!(limiter.suppressed(now, false), None);
        assert_eq!(limiter.suppressed(now + REPORT_INTERVAL, false), Some(15));
        assert_eq!(limiter.suppressed(now + REPORT_INTERVAL, true), None);
        allowed(&mut limiter, now, 2);
        assert_eq!(limiter.suppressed(now + REPORT_INTERVAL, true), Some(2));
    }
}
