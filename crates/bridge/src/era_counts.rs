//! Counts what clients of each era do.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The counts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct EraCounts(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    legacy: AtomicU64,
    modern: AtomicU64,
    parked: AtomicU64,
    rounds: AtomicU64,
    invalid_states: AtomicU64,
}

impl EraCounts {
    /// The requests of clients up to 2025-11-25.
    #[must_use]
    pub fn legacy_requests(&self) -> u64 {
        self.0.legacy.load(Ordering::Relaxed)
    }

    /// The requests of clients of 2026-07-28.
    #[must_use]
    pub fn modern_requests(&self) -> u64 {
        self.0.modern.load(Ordering::Relaxed)
    }

    /// The results that asked a client for input while its call waited at the server.
    #[must_use]
    pub fn parked_calls(&self) -> u64 {
        self.0.parked.load(Ordering::Relaxed)
    }

    /// The retries that have let a waiting call go on.
    #[must_use]
    pub fn rounds(&self) -> u64 {
        self.0.rounds.load(Ordering::Relaxed)
    }

    /// The retries whose `requestState` had expired or was not made here.
    #[must_use]
    pub fn invalid_states(&self) -> u64 {
        self.0.invalid_states.load(Ordering::Relaxed)
    }

    pub(crate) fn note_legacy(&self) {
        self.0.legacy.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_modern(&self) {
        self.0.modern.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_parked(&self) {
        self.0.parked.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_round(&self) {
        self.0.rounds.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_invalid_state(&self) {
        self.0.invalid_states.fetch_add(1, Ordering::Relaxed);
    }
}
