//! The client's side of a session, which outlives its servers.
//!
//! A registry decides which server a session has; a conversation decides what is said. The registry
//! numbers the servers of a session in the order of their starts and reads no bodies. The
//! conversation knows neither quotas nor backoff nor records: it asks for a server by
//! [`SessionHandle::want`], and is answered by [`Conversation::attach`] or
//! [`Conversation::refuse`].
//!
//! Lock order: the lock of a session, then that of its conversation. All methods but
//! [`Conversation::serve`], [`Conversation::start`], [`Conversation::refuse`] and
//! [`Conversation::close`] may be called under the lock of the session: they must return at once
//! and must not use the handle. A conversation uses its handle without holding its own lock.

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio_util::sync::CancellationToken;

use super::{
    Body, BoxError, BoxFuture, Caller, DetachReason, GrantId, Route, SessionError, Snapshot, SpawnError, UserId,
};

/// Names the servers of one session in the order of their starts, from 1. Zero: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerNumber(pub u64);

/// Makes the conversations of a registry's sessions. `PassThrough` is the
/// ready one, over a [`Spawner`](super::Spawner).
pub trait Host: fmt::Debug + Send + Sync + 'static {
    /// Makes the conversation of a session. Synchronous and cheap.
    ///
    /// `snapshot` is the record of a session that was open before; `None` for a new session.
    ///
    /// # Errors
    ///
    /// Any error if the snapshot cannot be used: the session ends.
    fn conversation(
        &self,
        info: ConversationInfo,
        handle: SessionHandle,
        snapshot: Option<Snapshot>,
    ) -> Result<Arc<dyn Conversation>, BoxError>;

    /// True if the servers themselves renew a credential that is refused upstream. If not, a server
    /// that ends at its start is a reason for the registry to have it renewed, since nothing else
    /// would reveal the refusal.
    fn renews_credentials(&self) -> bool {
        false
    }

    /// Decides where a request without a session id belongs. It may read the body and leave
    /// extensions in the request for the conversation. It is called again for a request whose
    /// session has ended in between. Synchronous and cheap.
    ///
    /// The default: an `initialize` opens a session, and everything else is refused.
    fn route(&self, _request: &mut Request<Bytes>, _caller: &Caller) -> Route {
        Route::Open
    }

    /// The state from which an implicit session is made for a request that [`route`](Host::route)
    /// has seen, unless the grant has a handshake to make it from. Not called for a session that
    /// exists. `None` makes none: the answer is 500.
    fn initial_snapshot(&self, _request: &Request<Bytes>) -> Option<Snapshot> {
        None
    }

    /// True if a session id has no meaning on a request with these headers: it is served as if it
    /// had none.
    fn ignores_session_id(&self, _headers: &HeaderMap) -> bool {
        false
    }
}

/// The session of a conversation.
#[derive(Clone, Debug)]
pub struct ConversationInfo {
    /// A short name of the session for logs. It is derived from a hash and cannot be turned back
    /// into the id.
    pub tag: Arc<str>,
    /// The grant that the session is bound to.
    pub grant: GrantId,
    /// The user of the grant.
    pub user: UserId,
    /// No client has an id of the session ([`Route`]). So none notices if a server differs from the
    /// one before it.
    pub implicit: bool,
}

/// The client's side of one session.
///
/// It lives as long as the session, except that a dormant session whose conversation is blank may
/// drop it and make it again from its snapshot.
pub trait Conversation: fmt::Debug + Send + Sync + 'static {
    /// Serves one exchange: POST, GET or DELETE. The registry has checked the session id and its
    /// owner. Dropping the future abandons the exchange, not the server.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Outcome>;

    /// Starts a server and replays what the client has set. It serves nothing until
    /// [`Conversation::attach`].
    ///
    /// The registry limits the time it waits and drops the future when it gives up; a server that
    /// was started by then must end by itself, and so must one that is dropped.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    fn start(self: Arc<Self>, order: StartOrder) -> BoxFuture<'static, Result<Arc<dyn Server>, SpawnError>>;

    /// Makes a started server the current one. It gets every call that waits, in the same step. The
    /// one before is retired: it finishes what it has. Nothing happens if a newer one was current.
    fn attach(&self, server: ServerNumber);

    /// Ends every call that waits for a server.
    fn refuse(&self, why: SessionError);

    /// Takes the place of the current server from it if nothing is in flight on it. True if it has
    /// done so.
    fn retire_if_idle(&self, server: ServerNumber) -> bool;

    /// Takes the place of the current server from one that has died or expired. What runs on it
    /// ends with it: it is being stopped.
    fn detach(&self, server: ServerNumber, reason: DetachReason);

    /// The calls, questions and tasks in flight on a server.
    fn in_flight(&self, server: ServerNumber) -> usize;

    /// Resolves when nothing is in flight on a retired server.
    fn drained(&self, server: ServerNumber) -> BoxFuture<'static, ()>;

    /// Grows when the snapshot changes.
    fn revision(&self) -> u64;

    /// The state from which [`Host::conversation`] makes the conversation again; `None` before the
    /// handshake is complete.
    fn snapshot(&self) -> Option<Snapshot>;

    /// True if a new instance made from the snapshot would be no different.
    fn is_blank(&self) -> bool;

    /// Ends the conversation with its session: everything that waits ends with this error, and
    /// streams end.
    fn close(&self, why: SessionError);
}

/// The outcome of an exchange.
#[derive(Debug)]
pub enum Outcome {
    /// The answer for the client.
    Answer(Response<Body>),
    /// The server has accepted `initialize`. The registry writes the record and then sends this
    /// answer with the session id.
    Opened(Response<Body>),
    /// The answer with which the session ends: after a DELETE, or if the session is lost for good.
    End(Response<Body>),
    /// There is no server for the request. The registry makes the answer.
    Unserved(SessionError),
}

/// A running MCP server of a session.
///
/// A server is disposable: the registry replaces it at will and keeps the session.
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// A token that is cancelled once the server is gone, whatever the cause.
    fn done(&self) -> CancellationToken;

    /// Reports a server that is gone or useless, possibly before [`Server::done`] is cancelled.
    fn is_gone(&self) -> bool {
        self.done().is_cancelled()
    }

    /// True if it has answered a request of the client, not merely a replayed handshake. Read when
    /// it has died: it decides whether the next start is delayed.
    fn has_answered(&self) -> bool;

    /// Ends the server and returns when it is gone. Idempotent, and safe from any number of
    /// callers.
    ///
    /// Dropping the future does not take the order to stop back.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// The expiry of the server's credential; `None` if it has none or a permanent one. Read once:
    /// the registry replaces the server in time.
    fn expires_at(&self) -> Option<SystemTime> {
        None
    }
}

/// The order to start a server.
#[derive(Clone, Debug)]
pub struct StartOrder {
    /// The number of the server, greater than those of all servers of the session before.
    pub number: ServerNumber,
    /// The caller of the session.
    pub caller: Arc<Caller>,
    /// A short name of the session for logs.
    pub tag: Arc<str>,
}

/// The means by which a conversation asks its registry. All methods return at once. It keeps
/// neither the session nor the registry alive: after their end nothing happens.
#[derive(Clone, Debug)]
pub struct SessionHandle(Arc<dyn SessionControl>);

/// The other end of a [`SessionHandle`]: the registry, or a double in the tests of a conversation.
/// The methods are those of the handle.
pub trait SessionControl: fmt::Debug + Send + Sync + 'static {
    /// [`SessionHandle::want`].
    fn want(&self, after: ServerNumber);
    /// [`SessionHandle::changed`].
    fn changed(&self);
    /// [`SessionHandle::touch`].
    fn touch(&self);
}

impl SessionHandle {
    /// A handle on `control`.
    #[must_use]
    pub fn new(control: Arc<dyn SessionControl>) -> Self {
        Self(control)
    }

    /// Asks for a server newer than `after`, for a call that waits. The current one, if it is not
    /// newer, is taken for dead. Answered by [`Conversation::attach`] or
    /// [`Conversation::refuse`], possibly before it returns.
    pub fn want(&self, after: ServerNumber) {
        self.0.want(after);
    }

    /// Reports that the revision has grown, or that the conversation has become blank.
    pub fn changed(&self) {
        self.0.changed();
    }

    /// Reports activity: the client did something, or something of it has ended.
    pub fn touch(&self) {
        self.0.touch();
    }
}
