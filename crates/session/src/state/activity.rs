//! The time of the last activity of a session. It is set by each exchange, without a lock.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use crate::sync::AtomicU64;

#[derive(Debug)]
pub(crate) struct Activity {
    base: Instant,
    /// Nanoseconds since `base`. They last for 584 years.
    last: AtomicU64,
}

impl Activity {
    /// Counts from `base`, which is not after `last`.
    pub(crate) fn new(base: Instant, last: Instant) -> Self {
        Self {
            base,
            last: AtomicU64::new(nanoseconds(base, last)),
        }
    }

    pub(crate) fn touch(&self, now: Instant) {
        self.last.fetch_max(nanoseconds(self.base, now), Ordering::Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.base + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }
}

fn nanoseconds(base: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(base).as_nanos()).unwrap_or(u64::MAX)
}
