//! One session as the registry keeps it, and the seat that its backend takes.
//!
//! The backend sits in a cell that readers load once per exchange, so that it can be replaced under them: whoever
//! loaded the old one finishes on it. A [`Seat`] gives each backend an identity of its own, by which the one that
//! watches a backend tells whether it is still the session's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    id::Key,
    life::Life,
    ports::{Backend, Caller},
};

/// A session: the record, and the cell for the backend that serves it now.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: Key,
    /// Names the session in logs.
    pub(crate) tag: Arc<str>,
    pub(crate) caller: Caller,
    pub(crate) opened: Instant,
    /// Cancelled when the session ends; its keeper then stops the backend.
    pub(crate) ended: CancellationToken,
    /// Cancelled when the session has ended and nothing is left of its backend.
    pub(crate) gone: CancellationToken,
    /// Empty until the backend has started.
    pub(crate) seat: ArcSwapOption<Seat>,
    // Changes to `Ended` only together with the removal from the table, by `Table::end` and its kin.
    life: Mutex<Life>,
}

/// A backend in its place. Two seats are the same only if they are the same allocation.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) done: CancellationToken,
}

/// Keeps a session from being reaped while an exchange is in flight.
#[derive(Debug)]
pub(crate) struct Pin(Arc<Session>);

impl Session {
    pub(crate) fn new(key: Key, caller: Caller, now: Instant) -> Self {
        Self {
            key,
            tag: key.tag(),
            caller,
            opened: now,
            ended: CancellationToken::new(),
            gone: CancellationToken::new(),
            seat: ArcSwapOption::empty(),
            life: Mutex::new(Life::Opening),
        }
    }

    /// The life of the session, under its lock. Nothing else is locked while it is held.
    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        // The state machine does not panic halfway through a change.
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `seat` is the one that serves the session now.
    pub(crate) fn is_seated(&self, seat: &Arc<Seat>) -> bool {
        self.seat
            .load()
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, seat))
    }

    /// Pins the session; `None` if it takes no exchanges.
    pub(crate) fn pin(self: &Arc<Self>) -> Option<Pin> {
        self.life().pin(Instant::now()).then(|| Pin(Arc::clone(self)))
    }
}

impl Seat {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        let done = backend.done();
        Arc::new(Self { backend, done })
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.0.life().unpin(Instant::now());
    }
}
