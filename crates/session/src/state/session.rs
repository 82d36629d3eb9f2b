//! One session as the registry holds it.

use std::sync::{Arc, OnceLock};

use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use super::{
    attached_backend::AttachedBackend,
    lifecycle::{Lifecycle, Phase},
    quota::SessionPermit,
};
use crate::{
    ports::{Caller, EndReason, GrantId, SessionKey, Snapshot, UserId},
    sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, lock},
};

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    /// Names the session in logs.
    pub(crate) tag: Arc<str>,
    pub(crate) grant: GrantId,
    pub(crate) user: UserId,
    /// Set by the first request since the registry started.
    caller: OnceLock<Arc<Caller>>,
    pub(crate) opened: Instant,
    /// The span of everything that is logged about the session. The client is among its fields once
    /// it is known.
    pub(crate) span: Span,
    /// Cancelled when the session ends; the tasks of its backends then stop them.
    pub(crate) ended: CancellationToken,
    /// Cancelled when the session has ended and nothing is left of its backends.
    pub(crate) gone: CancellationToken,
    /// Notified when the session gets a backend.
    pub(crate) attached: Notify,
    /// Streams that are held open while the session is dormant.
    pub(crate) parked_streams: AtomicUsize,
    /// True while the session is in the queue of changes to be written. Outside of the lock, for
    /// the hot path.
    pub(crate) queued_for_write: AtomicBool,
    locked: Mutex<Locked>,
}

/// The part of a session that changes, under one lock.
#[derive(Debug)]
pub(crate) struct Locked {
    // Ends only in `RegistryState`, which then removes the session from the table.
    pub(crate) lifecycle: Lifecycle<AttachedBackend>,
    /// `None` once the session has ended.
    pub(crate) permit: Option<Arc<SessionPermit>>,
    /// The contents of the durable record; `None` before the first write.
    pub(crate) written: Option<WrittenRecord>,
}

/// The contents of a durable record.
#[derive(Debug)]
pub(crate) struct WrittenRecord {
    /// `None` if the record was loaded and not written since.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) last_activity: Instant,
}

impl Session {
    pub(crate) fn new(
        key: SessionKey,
        grant: GrantId,
        user: UserId,
        permit: SessionPermit,
        lifecycle: Lifecycle<AttachedBackend>,
        opened: Instant,
    ) -> Self {
        let tag = key.tag();
        // A root span, so that a task that serves several sessions does not mix their fields; at
        // the highest level, so that warnings have the fields whatever the filter lets through.
        let span = tracing::error_span!(
            parent: None,
            "session",
            session = %tag,
            user = %user.0,
            grant = %grant.0,
            client = tracing::field::Empty,
        );
        Self {
            key,
            tag,
            grant,
            user,
            caller: OnceLock::new(),
            opened,
            span,
            ended: CancellationToken::new(),
            gone: permit.released.clone(),
            attached: Notify::new(),
            parked_streams: AtomicUsize::new(0),
            queued_for_write: AtomicBool::new(false),
            locked: Mutex::new(Locked {
                lifecycle,
                permit: Some(Arc::new(permit)),
                written: None,
            }),
        }
    }

    /// Locks the part that changes. Only the queue of changes and the deadlines are locked while it
    /// is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked> {
        lock(&self.locked)
    }

    /// The backend that serves the session now.
    pub(crate) fn backend(&self) -> Option<Arc<AttachedBackend>> {
        self.lock().lifecycle.backend().cloned()
    }

    /// Remembers the caller of the first request.
    pub(crate) fn bind_caller(&self, caller: &Arc<Caller>) {
        self.caller.get_or_init(|| {
            self.span.record("client", &*caller.client.0);
            Arc::clone(caller)
        });
    }

    /// The caller, if there was a request since the registry started.
    pub(crate) fn caller(&self) -> Option<&Arc<Caller>> {
        self.caller.get()
    }

    /// True if the session was ended with its grant or its user, so that the user has to sign in
    /// again.
    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self.lock().lifecycle.phase(), Phase::Ended(EndReason::Revoked))
    }
}
