//! A backend of a session, with the exchanges that are in flight on it.
//!
//! Each allocation is an identity: a task that watches a backend finds out by it whether the
//! backend is still the session's.

use std::sync::{Arc, atomic::Ordering};

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use super::{expiry::Expiry, lifecycle::Retire};
use crate::{ports::Backend, sync::AtomicBool};

#[derive(Debug)]
pub(crate) struct AttachedBackend {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) done: CancellationToken,
    /// Cancelled when the backend is no longer the session's.
    pub(crate) retired: CancellationToken,
    /// The expiry of its credential.
    pub(crate) expiry: Option<Expiry>,
    answered: AtomicBool,
    /// True while a backend is being started to replace this one.
    rotating: AtomicBool,
    /// The exchanges in flight.
    exchanges: TaskTracker,
}

/// An exchange on a backend, which is not stopped under it up to a grace.
#[derive(Debug)]
pub(crate) struct InFlightGuard {
    pub(crate) attached: Arc<AttachedBackend>,
    _exchange: TaskTrackerToken,
}

/// Lets another rotation begin when it is dropped.
#[derive(Debug)]
pub(crate) struct RotationGuard<'a>(&'a AttachedBackend);

impl AttachedBackend {
    pub(crate) fn new(backend: Arc<dyn Backend>, expiry: Option<Expiry>) -> Arc<Self> {
        Arc::new(Self {
            done: backend.done(),
            backend,
            retired: CancellationToken::new(),
            expiry,
            answered: AtomicBool::new(false),
            rotating: AtomicBool::new(false),
            exchanges: TaskTracker::new(),
        })
    }

    /// Begins an exchange; `None` if the backend is retired.
    pub(crate) fn begin_exchange(self: Arc<Self>) -> Option<InFlightGuard> {
        // Before the check, so that the exchange is waited for if the retirement comes after it.
        let exchange = self.exchanges.token();
        (!self.retired.is_cancelled()).then(|| InFlightGuard {
            attached: self,
            _exchange: exchange,
        })
    }

    /// Returns when no exchange is in flight. To be called after the retirement.
    pub(crate) async fn drained(&self) {
        self.exchanges.close();
        self.exchanges.wait().await;
    }

    /// Notes that the backend has answered a request. True the first time.
    pub(crate) fn mark_answered(&self) -> bool {
        !self.has_answered() && !self.answered.swap(true, Ordering::Relaxed)
    }

    /// Begins a rotation; `None` if one is under way.
    pub(crate) fn begin_rotation(&self) -> Option<RotationGuard<'_>> {
        (!self.rotating.swap(true, Ordering::AcqRel)).then(|| RotationGuard(self))
    }
}

impl Retire for AttachedBackend {
    fn retire(&self) {
        self.retired.cancel();
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for RotationGuard<'_> {
    fn drop(&mut self) {
        self.0.rotating.store(false, Ordering::Release);
    }
}
