//! One session as the registry holds it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use super::{
    activity::Activity,
    attached_server::AttachedServer,
    lifecycle::{Lifecycle, Phase},
    quota::SessionPermit,
};
use crate::{
    ports::{Caller, Conversation, EndReason, GrantId, ServerNumber, SessionKey, UserId},
    sync::{AtomicBool, Mutex, MutexGuard, lock},
};

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    /// Names the session in logs.
    pub(crate) tag: Arc<str>,
    pub(crate) grant: GrantId,
    pub(crate) user: UserId,
    /// True if no client has an id of it.
    pub(crate) implicit: bool,
    /// Set by the first request since the registry started.
    caller: OnceLock<Arc<Caller>>,
    pub(crate) opened_at: Instant,
    /// The span of everything that is logged about the session. The client is among its fields once
    /// it is known.
    pub(crate) span: Span,
    /// Cancelled when the session ends; the keepers of its servers then stop them.
    pub(crate) ended: CancellationToken,
    /// Cancelled when the session has ended and nothing is left of its servers.
    pub(crate) gone: CancellationToken,
    /// The time at which the last exchange began or ended.
    pub(crate) activity: Activity,
    /// True while the session is in the queue of changes to be written. Outside of the lock, for
    /// the hot path.
    pub(crate) queued_for_write: AtomicBool,
    locked: Mutex<Locked>,
}

/// What a session is, from its beginning to its end.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: SessionKey,
    pub(crate) grant: GrantId,
    pub(crate) user: UserId,
    pub(crate) implicit: bool,
}

/// The part of a session that changes, under one lock.
#[derive(Debug)]
pub(crate) struct Locked {
    // Ends only in `RegistryState`, which then removes the session from the table.
    pub(crate) lifecycle: Lifecycle<AttachedServer>,
    /// `None` before the first request after a restart, while the conversation is put down, and
    /// once the session has ended.
    pub(crate) conversation: Option<Arc<dyn Conversation>>,
    /// Held while the record is being read. Made by the first request that needs it.
    pub(crate) loading: Option<Arc<tokio::sync::Mutex<()>>>,
    /// The server that was replaced by a rotation and has not stopped yet.
    pub(crate) retired: Option<Box<RetiredServer>>,
    /// A rotation is due and waits for the end of the retired server.
    pub(crate) rotation_waits: bool,
    /// `None` once the session has ended.
    pub(crate) share: Option<Share>,
    /// The contents of the durable record; `None` before the first write.
    pub(crate) written: Option<WrittenRecord>,
}

/// What a session has in common with the keepers of its servers. The last one frees its place.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    // Dropped in this order: when nothing is left of the session, its place is free.
    /// `None` with a server that has a permit of its own.
    pub(crate) permit: Option<Arc<SessionPermit>>,
    _gone: Arc<DropGuard>,
}

/// A server that finishes what it has, with a permit of its own.
#[derive(Debug)]
pub(crate) struct RetiredServer {
    pub(crate) server: Arc<AttachedServer>,
    pub(crate) _permit: SessionPermit,
}

/// The contents of a durable record.
#[derive(Debug)]
pub(crate) struct WrittenRecord {
    /// The revision of the snapshot; `None` if the conversation has not been made since a restart.
    pub(crate) revision: Option<u64>,
    /// True if the record was loaded and not written since.
    pub(crate) as_loaded: bool,
    pub(crate) last_activity: Instant,
}

impl Session {
    pub(crate) fn new(
        identity: Identity,
        permit: SessionPermit,
        lifecycle: Lifecycle<AttachedServer>,
        opened_at: Instant,
        last_activity: Instant,
    ) -> Self {
        let Identity {
            key,
            grant,
            user,
            implicit,
        } = identity;
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
            implicit,
        );
        let gone = CancellationToken::new();
        Self {
            key,
            tag,
            grant,
            user,
            implicit,
            caller: OnceLock::new(),
            opened_at,
            span,
            ended: CancellationToken::new(),
            gone: gone.clone(),
            activity: Activity::new(opened_at.min(last_activity), last_activity),
            queued_for_write: AtomicBool::new(false),
            locked: Mutex::new(Locked {
                lifecycle,
                conversation: None,
                loading: None,
                retired: None,
                rotation_waits: false,
                share: Some(Share {
                    permit: Some(Arc::new(permit)),
                    _gone: Arc::new(gone.drop_guard()),
                }),
                written: None,
            }),
        }
    }

    /// Locks the part that changes. Only the conversation, the queue of changes, the deadlines, the
    /// quota and the backoffs are locked while it is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Locked> {
        lock(&self.locked)
    }

    /// The server that serves the session now.
    pub(crate) fn server(&self) -> Option<Arc<AttachedServer>> {
        self.lock().lifecycle.server().cloned()
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

    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.lock().lifecycle.phase(), Phase::Ended(_))
    }

    /// True if the session was ended with its grant or its user, so that the user has to sign in
    /// again.
    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self.lock().lifecycle.phase(), Phase::Ended(EndReason::Revoked))
    }

    /// The time since the last activity; `None` while a server is being started or anything is in
    /// flight on one, and unless the session is open.
    pub(crate) fn idle(&self, locked: &Locked, now: Instant) -> Option<Duration> {
        let busy = locked.lifecycle.is_waking() || locked.is_busy();
        let idle = || now.saturating_duration_since(self.activity.last());
        (locked.lifecycle.is_open() && !busy).then(idle)
    }
}

impl Locked {
    /// True if anything is in flight on a server of the session.
    fn is_busy(&self) -> bool {
        let current = self.lifecycle.server().map(|server| server.number);
        let retired = self.retired.as_ref().map(|retired| retired.server.number);
        let in_flight = |number: ServerNumber| self.conversation.as_ref().is_some_and(|c| c.in_flight(number) > 0);
        current.into_iter().chain(retired).any(in_flight)
    }

    /// True if `server` was replaced by a rotation and has not stopped yet.
    pub(crate) fn is_retired(&self, server: &Arc<AttachedServer>) -> bool {
        let retired = self.retired.as_ref();
        retired.is_some_and(|retired| Arc::ptr_eq(&retired.server, server))
    }
}
