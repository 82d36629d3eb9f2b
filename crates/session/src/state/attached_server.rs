//! A server of a session, as the registry holds it.
//!
//! Each allocation is an identity: a task that watches a server finds out by it whether the server
//! is still the session's.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{expiry::Expiry, lifecycle::Retire};
use crate::{
    ports::{Server, ServerNumber},
    sync::AtomicBool,
};

#[derive(Debug)]
pub(crate) struct AttachedServer {
    pub(crate) number: ServerNumber,
    pub(crate) server: Arc<dyn Server>,
    pub(crate) done: CancellationToken,
    /// Cancelled when the server is no longer the session's.
    pub(crate) retired: CancellationToken,
    /// Notified when the session has been opened with it.
    pub(crate) opened: Notify,
    /// The expiry of its credential.
    pub(crate) expiry: Option<Expiry>,
    /// True while a server is being started to replace this one.
    rotating: AtomicBool,
}

/// Lets another rotation begin when it is dropped.
#[derive(Debug)]
pub(crate) struct RotationGuard<'a>(&'a AttachedServer);

impl AttachedServer {
    pub(crate) fn new(number: ServerNumber, server: Arc<dyn Server>, expiry: Option<Expiry>) -> Arc<Self> {
        Arc::new(Self {
            number,
            done: server.done(),
            server,
            retired: CancellationToken::new(),
            opened: Notify::new(),
            expiry,
            rotating: AtomicBool::new(false),
        })
    }

    /// Begins a rotation; `None` if one is under way.
    pub(crate) fn begin_rotation(&self) -> Option<RotationGuard<'_>> {
        (!self.rotating.swap(true, Ordering::AcqRel)).then(|| RotationGuard(self))
    }
}

impl Retire for AttachedServer {
    fn retire(&self) {
        self.retired.cancel();
    }
}

impl Drop for RotationGuard<'_> {
    fn drop(&mut self) {
        self.0.rotating.store(false, Ordering::Release);
    }
}
