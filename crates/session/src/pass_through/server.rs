//! A backend as a numbered server, with the exchanges that are in flight on it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    ports::{Backend, BoxFuture, Server, ServerNumber, SessionHandle},
    sync::{AtomicBool, AtomicUsize, sleep},
};

/// The interval at which a backend is asked whether it is busy still.
const BUSY_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct PassThroughServer {
    pub(super) number: ServerNumber,
    pub(super) backend: Arc<dyn Backend>,
    /// Cancelled when it is no longer current.
    pub(super) replaced: CancellationToken,
    answered: AtomicBool,
    /// The number of exchanges in flight.
    exchanges: AtomicUsize,
    /// Notified when it falls to zero.
    idle: Notify,
}

/// An exchange on a server, begun under the lock of the conversation.
#[derive(Debug)]
pub(super) struct Begun(pub(super) Arc<PassThroughServer>);

/// An exchange in flight, until its response body is dropped. Its end counts as activity, and only
/// then is it known what the exchange has changed.
#[derive(Debug)]
pub(super) struct InFlight {
    /// `None` only while it is being dropped.
    begun: Option<Begun>,
    handle: SessionHandle,
}

impl PassThroughServer {
    pub(super) fn new(number: ServerNumber, backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            number,
            backend,
            replaced: CancellationToken::new(),
            answered: AtomicBool::new(false),
            exchanges: AtomicUsize::new(0),
            idle: Notify::new(),
        })
    }

    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.exchanges.fetch_add(1, Ordering::AcqRel);
        Begun(Arc::clone(self))
    }

    pub(super) fn in_flight(&self) -> usize {
        self.exchanges.load(Ordering::Acquire) + self.backend.busy()
    }

    pub(super) fn mark_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Returns when nothing is in flight.
    pub(super) async fn drained(&self) {
        loop {
            // Before the check, so that an end in between is not missed.
            let idle = self.idle.notified();
            if self.in_flight() == 0 {
                return;
            }
            tokio::select! {
                () = idle => {}
                () = sleep(BUSY_INTERVAL) => {}
            }
        }
    }
}

impl Server for PassThroughServer {
    fn done(&self) -> CancellationToken {
        self.backend.done()
    }

    fn is_gone(&self) -> bool {
        self.backend.is_gone()
    }

    fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.backend.stop()
    }

    fn expires_at(&self) -> Option<SystemTime> {
        self.backend.expires_at()
    }
}

impl InFlight {
    pub(super) fn new(begun: Begun, handle: SessionHandle) -> Self {
        Self {
            begun: Some(begun),
            handle,
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if self.0.exchanges.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Before the activity: its time is that of the end.
        self.begun = None;
        self.handle.touch();
    }
}
