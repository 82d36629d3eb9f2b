//! What the registry needs from the outside, as traits that it owns.
//!
//! A [`Spawner`] makes a [`Backend`] for a session; [`Credentials`] say whose upstream token the backend
//! holds and for how long; [`Records`] keep what is left of a session without its backend. Nothing here knows of processes, JSON-RPC framing or OAuth: an embedder brings its own
//! implementations. All traits are object-safe and are held as `Arc<dyn _>`.

mod observer;
mod records;

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::SystemTime};

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

/// An owned future that can move between threads.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What may go wrong while a response body is produced.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A running MCP server that serves one session now.
///
/// A backend is disposable: the registry replaces it at will and keeps the session.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Serves one HTTP exchange of the session.
    ///
    /// The registry has already checked the session id and its owner. A backend whose server is gone still
    /// answers: with a JSON-RPC error that carries the id of the request, never with silence, and marks the answer with
    /// [`BackendGone`], and with [`NotProcessed`] where that is certain.
    /// Dropping the future abandons the exchange, not the server.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Body>>;

    /// A token that is cancelled once the server is gone, whatever the cause.
    fn done(&self) -> CancellationToken;

    /// Ends the server and returns when it is gone. Idempotent, and safe from any number of callers.
    ///
    /// Dropping the future does not take the order to stop back.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Whether the server is of no use any more, though [`Backend::done`] may not have been told yet. The registry
    /// gives no exchange to such a backend.
    fn is_gone(&self) -> bool {
        self.done().is_cancelled()
    }

    /// What a fresh backend must replay to stand in for this one; `None` before the handshake is complete. It can still be
    /// asked for when the server is gone.
    fn snapshot(&self) -> Option<Snapshot>;

    /// When the credential that the backend holds stops being good; `None` if it does not hold one, or one that lasts.
    /// Asked once, when the backend takes its seat: the registry replaces it in time.
    fn expires_at(&self) -> Option<SystemTime> {
        None
    }
}

/// Marks, in the extensions of a response, that the server was gone when it was made. So a backend that died at its
/// `initialize` is told from a server that refused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendGone;

/// Marks, in the extensions of a response to a request, that the server was gone before it can have read anything of the
/// request. The registry then asks the next backend, and the client sees nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotProcessed;

/// The span of the session that an exchange belongs to, in the extensions of the response: whoever logs the exchange can
/// do so under the session's fields.
#[derive(Clone, Debug)]
pub struct SessionSpan(pub tracing::Span);

/// Makes backends: the extension point of the registry (a process, a container, a remote server).
pub trait Spawner: fmt::Debug + Send + Sync + 'static {
    /// Starts a backend for a session and returns it ready to serve.
    ///
    /// The registry bounds the time it waits and drops the future when it gives up; what was started by
    /// then must end by itself.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Credentials`] when the user has to sign in again, [`SpawnError::Unavailable`] when a later try may
    /// succeed, [`SpawnError::Failed`] when the backend did not start, [`SpawnError::NotReady`] when it started and is of no use.
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>>;

    /// Whether a credential that is refused upstream is renewed by the backends themselves. If not, one that ends at its start is a
    /// reason for the registry to have it renewed, since nothing else would tell.
    fn renews_credentials(&self) -> bool {
        false
    }
}

/// The one upstream credential of a user. All sessions of the user share it.
pub trait Credentials: fmt::Debug + Send + Sync + 'static {
    /// The credential as it stands, renewed first if it has run out or is about to.
    ///
    /// # Errors
    ///
    /// [`CredentialError::Terminal`] when the user has to sign in again, [`CredentialError::Transient`] when a
    /// later try may succeed.
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>>;

    /// Renews the credential in single flight: callers that come while a renewal is under way get its outcome.
    ///
    /// # Errors
    ///
    /// As for [`Credentials::current`].
    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>>;
}

/// An upstream access token and when it stops being good.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The token that the backend presents upstream.
    pub access_token: SecretString,
    /// The wall-clock time at which the token expires.
    pub expires_at: SystemTime,
}

/// Why there is no credential.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The upstream has refused for good: the user must sign in again.
    #[error("the user has to sign in again")]
    Terminal(#[source] BoxError),
    /// The upstream could not be asked: a later try may succeed.
    #[error("the credential cannot be renewed now")]
    Transient(#[source] BoxError),
}

/// What a [`Spawner`] is asked for.
#[derive(Clone, Debug)]
pub struct SpawnOrder {
    /// Whose session it is.
    pub caller: Arc<Caller>,
    /// What the fresh backend must replay before it serves; `None` for a new session.
    pub snapshot: Option<Snapshot>,
    /// A short name of the session for logs. It is derived from a hash and cannot be turned back into the id.
    pub tag: Arc<str>,
}

/// Why a backend could not be made. The text is for the operator's log; no client reads it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The user has to sign in again before a backend can be made.
    #[error("there is no usable credential for the user")]
    Credentials(#[source] BoxError),
    /// A backend cannot be made now; a later try may succeed.
    #[error("a backend cannot be started now")]
    Unavailable(#[source] BoxError),
    /// The backend did not start, or ended instead of becoming ready. Its credential may be why: the registry may have it renewed
    /// and try once more.
    #[error("the backend did not start")]
    Failed(#[source] BoxError),
    /// The backend lives and did not become ready: it takes too long, or cannot stand in for the one before it. The credential is not why.
    #[error("the backend did not become ready")]
    NotReady(#[source] BoxError),
}

/// The grant that a request is authenticated for.
///
/// The embedder makes one for each grant and puts the shared value, an `Arc<Caller>`, into the extensions of each request.
#[derive(Clone, Debug)]
pub struct Caller {
    /// One user's yes to one client. Sessions are bound to it.
    pub grant: GrantId,
    /// The user, for caps and for ending all sessions of a user.
    pub user: UserId,
    /// The client of the grant, for the log.
    pub client: ClientId,
    /// The user's upstream credential.
    pub credentials: Arc<dyn Credentials>,
}

/// When the bearer of a request was checked: the time from before it was looked up.
///
/// Put into the extensions of a request beside its [`Caller`], it lets the registry refuse to open a session whose grant was ended
/// while the rest of the request arrived. Without it a grant that ends in between is noticed at the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthenticatedAt(pub Instant);

/// Names a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantId(pub Arc<str>);

/// Names a client, as whoever registered it knows it: not by the name that it gives itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(pub Arc<str>);

/// Names a user.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(pub Arc<str>);

/// What a fresh backend must replay to stand in for the one before it, in a form that only backends read.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot(pub Bytes);

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The handshake may hold what a client would not want in a log.
        write!(f, "Snapshot({} bytes)", self.0.len())
    }
}
