//! How a session's backends have fared, and when the next one may be started: a state machine that takes the time.
//!
//! A backend that ends before it has answered anything counts, and so does one that does not start; one good answer
//! clears the count. The first such end costs nothing: the next request is served by a fresh backend at once. From the second
//! on there is a wait, doubled each time up to a limit, so that a server that cannot live is not started over and over.

use std::time::Duration;

use tokio::time::Instant;

/// The count of ends in a row, and the time before which no backend is started.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Streak {
    ends: u32,
    not_before: Option<Instant>,
}

impl Streak {
    /// A backend ended without having answered anything, or did not start.
    pub(crate) fn failed(&mut self, now: Instant, first: Duration, most: Duration) {
        self.ends = self.ends.saturating_add(1);
        if let Some(doublings) = self.ends.checked_sub(2) {
            let wait = first.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
            self.not_before = Some(now + wait.min(most));
        }
    }

    /// A backend has answered.
    pub(crate) fn cleared(&mut self) {
        *self = Self::default();
    }

    /// How long to wait before the next start; `None` if it may be now.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.not_before?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_end_costs_nothing_and_then_the_wait_doubles_to_its_limit() {
        let now = Instant::now();
        let mut streak = Streak::default();
        let mut waits = Vec::new();
        for _ in 0..40 {
            streak.failed(now, FIRST, MOST);
            waits.push(streak.wait(now).map_or(0, |wait| wait.as_secs()));
        }
        assert_eq!(waits[..7], [0, 1, 2, 4, 8, 10, 10]);
        assert_eq!(waits[39], 10);
        assert_eq!(streak.wait(now + MOST), None);
        streak.cleared();
        streak.failed(now, FIRST, MOST);
        assert_eq!(streak.wait(now), None);
    }
}
