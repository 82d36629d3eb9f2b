//! Restart backoff: a state machine that says when the next backend of a session may start.
//!
//! A backend that ends before it has answered anything counts as a failure, and so does one that
//! does not start. One good answer resets the count. The first failure costs nothing: the next
//! request starts a backend at once. From the second on there is a delay, doubled each time up to a
//! limit, so that a crashing server is not restarted in a tight loop.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;

/// The consecutive failures, and the time before which no backend is started.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RestartBackoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl RestartBackoff {
    /// Counts a backend that did not start, or ended without having answered anything.
    pub(crate) fn record_failure(&mut self, now: Instant, config: &Config) {
        self.failures = self.failures.saturating_add(1);
        if let Some(doublings) = self.failures.checked_sub(2) {
            let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
            self.not_before = Some(now + config.backoff.saturating_mul(factor).min(config.max_backoff));
        }
    }

    /// Forgets the failures, since a backend has answered.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The time until the next start; `None` if it may be now.
    pub(crate) fn remaining(&self, now: Instant) -> Option<Duration> {
        let remaining = self.not_before?.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_failure_costs_nothing_and_then_the_delay_doubles_to_its_limit() {
        let config = Config {
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            ..Config::default()
        };
        let now = Instant::now();
        let mut backoff = RestartBackoff::default();
        let mut delays = Vec::new();
        for _ in 0..40 {
            backoff.record_failure(now, &config);
            delays.push(backoff.remaining(now).map_or(0, |delay| delay.as_secs()));
        }
        assert_eq!(delays[..7], [0, 1, 2, 4, 8, 10, 10]);
        assert_eq!(delays[39], 10);
        assert_eq!(backoff.remaining(now + config.max_backoff), None);
        backoff.reset();
        backoff.record_failure(now, &config);
        assert_eq!(backoff.remaining(now), None);
    }
}
