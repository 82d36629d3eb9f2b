//! The traits that an embedder implements for the registry.
//!
//! A [`Spawner`] makes a [`Backend`] for a session; [`Credentials`] are a user's upstream token and
//! its expiry; [`Records`] keep sessions over restarts; an [`Observer`] counts events. Nothing here
//! knows of processes, JSON-RPC framing or OAuth. All traits are object-safe and are held as
//! `Arc<dyn _>`.

mod observer;
mod records;

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use secrecy::SecretString;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::{
    observer::{
        Clock, DetachReason, EndReason, Event, NoopObserver, Observer, QuotaScope, SpawnFailure, SpawnPurpose,
        SystemClock,
    },
    records::{Change, Record, Records, RecordsError, Seal, SessionKey},
};
pub use futures_core::future::BoxFuture;

/// An error of an embedder's implementation or of a response body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A running MCP server that serves one session now.
///
/// A backend is disposable: the registry replaces it at will and keeps the session.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Serves one HTTP exchange of the session.
    ///
    /// The registry has already checked the session id and its owner. A backend whose server is
    /// gone still answers: with a JSON-RPC error that carries the id of the request, marked with
    /// [`BackendGone`], and with [`NotProcessed`] if that is certain. Dropping the future abandons
    /// the exchange, not the server.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>>;

    /// A token that is cancelled once the server is gone, whatever the cause.
    fn done(&self) -> CancellationToken;

    /// Ends the server and returns when it is gone. Idempotent, and safe from any number of
    /// callers.
    ///
    /// Dropping the future does not take the order to stop back.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Reports a server that is gone or useless, possibly before [`Backend::done`] is cancelled.
    /// The registry sends no exchange to it.
    fn is_gone(&self) -> bool {
        self.done().is_cancelled()
    }

    /// The state that a new backend must replay to replace this one; `None` before the handshake is
    /// complete. Available after the end of the server too.
    fn snapshot(&self) -> Option<Snapshot>;

    /// The expiry of the backend's credential; `None` if it has none or a permanent one. Read once,
    /// when the backend is attached: the registry replaces it in time.
    fn expires_at(&self) -> Option<SystemTime> {
        None
    }
}

/// Marks, in the extensions of a response, that the server was gone when it was made. It
/// distinguishes a backend that died at its `initialize` from a server that refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendGone;

/// Marks, in the extensions of a response, that the server was gone before it can have read the
/// request. The registry then sends the request to the next backend, unseen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProcessed;

/// The span of the exchange's session, in the extensions of the response, so that an access log can
/// have the session's fields.
#[derive(Clone, Debug)]
pub struct SessionSpan(pub tracing::Span);

/// Makes backends: the extension point of the registry (a process, a container, a remote server).
pub trait Spawner: fmt::Debug + Send + Sync + 'static {
    /// Starts a backend for a session and returns it ready to serve.
    ///
    /// The registry limits the time it waits and drops the future when it gives up; a server that
    /// was started by then must end by itself.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Credentials`] when the user has to sign in again, [`SpawnError::Unavailable`]
    /// when a later try may succeed, [`SpawnError::Failed`] when the backend did not start,
    /// [`SpawnError::NotReady`] when it started and is useless.
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>>;

    /// True if the backends themselves renew a credential that is refused upstream. If not, a
    /// backend that ends at its start is a reason for the registry to have it renewed, since
    /// nothing else would reveal the refusal.
    fn renews_credentials(&self) -> bool {
        false
    }
}

/// The one upstream credential of a user. All sessions of the user share it.
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// The current credential, renewed first if it has expired or is about to.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Terminal`] when the user has to sign in again,
    /// [`CredentialError::Transient`] when a later try may succeed.
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>>;

    /// Renews the credential in single flight: concurrent calls share one renewal.
    ///
    /// # Errors
    ///
    /// As for [`Credentials::current`].
    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>>;
}

/// An upstream access token and its expiry.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The token that the backend presents upstream.
    pub access_token: SecretString,
    /// The wall-clock time at which the token expires.
    pub expires_at: SystemTime,
}

/// The reason that there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The upstream refused permanently: the user must sign in again.
    #[error("the user has to sign in again")]
    Terminal(#[source] BoxError),
    /// The upstream is not reachable: a later attempt may succeed.
    #[error("the credential cannot be renewed now")]
    Transient(#[source] BoxError),
}

/// The order to start a backend.
#[derive(Clone, Debug)]
pub struct SpawnOrder {
    /// The caller of the session.
    pub caller: Arc<Caller>,
    /// The state to replay before the backend serves; `None` for a new session.
    pub snapshot: Option<Snapshot>,
    /// A short name of the session for logs. It is derived from a hash and cannot be turned back
    /// into the id.
    pub tag: Arc<str>,
}

/// The reason that a backend was not started. The text is for the operator's log; no client reads
/// it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The user has to sign in again before a backend can be made.
    #[error("there is no usable credential for the user")]
    Credentials(#[source] BoxError),
    /// A backend cannot be made now; a later attempt may succeed.
    #[error("a backend cannot be started now")]
    Unavailable(#[source] BoxError),
    /// The backend did not start, or ended instead of becoming ready. Its credential may be the
    /// reason: the registry may have it renewed and start another one.
    #[error("the backend did not start")]
    Failed(#[source] BoxError),
    /// The backend runs and did not become ready: it takes too long, or cannot replace the one
    /// before it. The credential is not the reason.
    #[error("the backend did not become ready")]
    NotReady(#[source] BoxError),
}

/// The grant that a request is authenticated for.
///
/// The embedder makes one for each grant and puts the shared value, an `Arc<Caller>`, into the
/// extensions of each request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// One user's consent to one client. Sessions are bound to it.
    pub grant: GrantId,
    /// The user, for quotas and for ending all sessions of a user.
    pub user: UserId,
    /// The client of the grant, for the log.
    pub client: ClientId,
    /// The user's upstream credential.
    pub credentials: Arc<dyn Credentials>,
}

/// The time just before the bearer of a request was looked up.
///
/// In the extensions of a request beside its [`Caller`], it lets the registry refuse to open a
/// session whose grant was ended while the rest of the request arrived. Without it a grant that
/// ends in between is noticed at the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticatedAt(pub Instant);

/// The id of a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantId(pub Arc<str>);

/// The id of a client, as registered; not the name that it gives itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub Arc<str>);

/// The id of a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub Arc<str>);

/// The state that a new backend must replay to replace the one before it, in a form that only
/// backends read.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(pub Bytes);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The handshake may hold secrets of the client.
        write!(f, "Snapshot({} bytes)", self.0.len())
    }
}
