//! The servers of a conversation and what waits for one.

use std::{
    mem,
    sync::{Arc, Weak},
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::server::{Begun, PassThroughServer};
use crate::ports::{ServerNumber, SessionError, Snapshot};

#[derive(Debug)]
pub(super) struct State {
    /// True once a server has accepted `initialize`.
    pub(super) opened: bool,
    pub(super) current: Option<Arc<PassThroughServer>>,
    /// Those that were started and not attached, and those on which something was in flight when
    /// they were replaced.
    pub(super) others: Vec<Weak<PassThroughServer>>,
    /// The newest that has been current.
    newest: ServerNumber,
    pub(super) waiting: Vec<oneshot::Sender<Result<Begun, SessionError>>>,
    /// Made with the first stream that is parked.
    pub(super) parked: Option<Parked>,
    /// The snapshot as last seen.
    snapshot: Option<Snapshot>,
    pub(super) revision: u64,
    pub(super) closed: Option<SessionError>,
}

#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Cancelled when there is a server again.
    pub(super) ended: CancellationToken,
    /// Shared with the streams, to count them.
    pub(super) count: Arc<()>,
}

impl State {
    pub(super) fn new(snapshot: Option<Snapshot>) -> Self {
        Self {
            opened: snapshot.is_some(),
            current: None,
            others: Vec::new(),
            newest: ServerNumber::default(),
            waiting: Vec::new(),
            parked: None,
            snapshot,
            revision: 0,
            closed: None,
        }
    }

    pub(super) fn server(&self, number: ServerNumber) -> Option<Arc<PassThroughServer>> {
        let others = self.others.iter().filter_map(Weak::upgrade);
        let mut servers = self.current.iter().cloned().chain(others);
        servers.find(|server| server.number == number)
    }

    /// The snapshot of the current backend, or else of the last one.
    pub(super) fn latest_snapshot(&mut self) -> Option<Snapshot> {
        let current = self.current.as_ref().filter(|_| self.opened);
        let latest = current.and_then(|current| current.backend.snapshot());
        if latest.is_some() && latest != self.snapshot {
            self.snapshot = latest;
            self.revision += 1;
        }
        self.snapshot.clone()
    }

    pub(super) fn is_current(&self, number: ServerNumber) -> bool {
        self.current.as_ref().is_some_and(|current| current.number == number)
    }

    /// Leaves the place of the current server empty.
    pub(super) fn vacate(&mut self) {
        self.latest_snapshot();
        if let Some(before) = self.current.take() {
            before.replaced.cancel();
            if before.in_flight() > 0 {
                self.others.push(Arc::downgrade(&before));
            }
        }
    }

    /// Ends the streams that are parked.
    pub(super) fn unpark(&mut self) {
        if let Some(parked) = self.parked.take() {
            parked.ended.cancel();
        }
    }

    /// Makes a started server the current one, and hands it what waits.
    pub(super) fn attach(&mut self, server: ServerNumber) {
        let Some(next) = self.server(server).filter(|_| server > self.newest) else {
            return;
        };
        self.vacate();
        self.unpark();
        self.newest = server;
        let gone = |other: &Weak<_>| other.strong_count() == 0 || other.as_ptr() == Arc::as_ptr(&next);
        self.others.retain(|other| !gone(other));
        self.others.shrink_to_fit();
        for waiting in mem::take(&mut self.waiting) {
            // An error means that the client has gone.
            drop(waiting.send(Ok(next.begin())));
        }
        self.current = Some(next);
    }

    /// True if nothing is here but the snapshot.
    pub(super) fn is_blank(&self) -> bool {
        let idle = |server: Arc<PassThroughServer>| server.in_flight() == 0;
        self.current.is_none()
            && self
                .parked
                .as_ref()
                .is_none_or(|parked| Arc::strong_count(&parked.count) == 1)
            && self.waiting.iter().all(oneshot::Sender::is_closed)
            && self.others.iter().filter_map(Weak::upgrade).all(idle)
    }
}
