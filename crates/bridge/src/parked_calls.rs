//! The number of calls that wait for the answers of clients, in all conversations of a process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A limit on the calls that are parked at the same time. Clones share it.
#[derive(Clone, Debug)]
pub struct ParkedCalls(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    limit: usize,
    used: AtomicUsize,
}

/// The place of one parked call. Dropping it frees the place.
#[derive(Debug)]
pub(crate) struct ParkedPlace(ParkedCalls);

impl ParkedCalls {
    /// A limit of so many calls.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self(Arc::new(Counter { limit, used }))
    }

    /// The number of parked calls.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A place for one more call; `None` at the limit.
    pub(crate) fn take(&self) -> Option<ParkedPlace> {
        // Only the number matters, so no other memory is ordered by it.
        let limit = self.0.limit;
        let more = |used| (used < limit).then_some(used + 1);
        let taken = self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok().then(|| ParkedPlace(self.clone()))
    }
}

impl Drop for ParkedPlace {
    fn drop(&mut self) {
        self.0.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_once_it_is_dropped() {
        let calls = ParkedCalls::new(2);
        let (first, second) = (calls.take(), calls.clone().take());
        assert!(first.is_some() && second.is_some() && calls.take().is_none());
        drop(first);
        assert!(calls.take().is_some());
        assert_eq!(calls.count(), 1);
    }
}
