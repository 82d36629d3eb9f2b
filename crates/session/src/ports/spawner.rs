//! The simple extension point: a spawner makes a backend, and the backend serves the exchanges of
//! its session. `PassThrough` is the conversation over it.

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{Request, Response};
use tokio_util::sync::CancellationToken;

use super::{Body, BoxError, BoxFuture, Caller, Snapshot};

/// Makes backends (a process, a container, a remote server).
pub trait Spawner: fmt::Debug + Send + Sync + 'static {
    /// Starts a backend for a session and returns it ready to serve.
    ///
    /// The registry limits the time it waits and drops the future when it gives up; a server that
    /// was started by then must end by itself.
    ///
    /// # Errors
    ///
    /// [`SpawnError`].
    fn spawn(&self, order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>>;

    /// True if the backends themselves renew a credential that is refused upstream
    /// ([`Host::renews_credentials`](super::Host::renews_credentials)).
    fn renews_credentials(&self) -> bool {
        false
    }
}

/// A running MCP server that serves one session now.
///
/// A backend is disposable: the registry replaces it at will and keeps the session.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// Serves one HTTP exchange of the session, POST or GET.
    ///
    /// The registry has already checked the session id and its owner. A backend whose server is
    /// gone still answers: with [`Reply::Gone`] and a JSON-RPC error that carries the id of the
    /// request. Dropping the future abandons the exchange, not the server.
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Reply>;

    /// A token that is cancelled once the server is gone, whatever the cause.
    fn done(&self) -> CancellationToken;

    /// Ends the server and returns when it is gone. Idempotent, and safe from any number of
    /// callers.
    ///
    /// Dropping the future does not take the order to stop back.
    fn stop(&self) -> BoxFuture<'_, ()>;

    /// Reports a server that is gone or useless, possibly before [`Backend::done`] is cancelled. No
    /// exchange is sent to it.
    fn is_gone(&self) -> bool {
        self.done().is_cancelled()
    }

    /// The state that a new backend must replay to replace this one; `None` before the handshake is
    /// complete. Available after the end of the server too. Must return at once.
    fn snapshot(&self) -> Option<Snapshot>;

    /// The expiry of the backend's credential; `None` if it has none or a permanent one. Read once:
    /// the registry replaces the backend in time.
    fn expires_at(&self) -> Option<SystemTime> {
        None
    }

    /// The number of tasks of the server, beside the exchanges in flight, during which it must not
    /// be stopped for idleness. Must return at once.
    fn busy(&self) -> usize {
        0
    }
}

/// The answer of a backend to an exchange.
#[derive(Debug)]
pub enum Reply {
    /// The answer of the server.
    Response(Response<Body>),
    /// The server was gone when this answer was made.
    Gone {
        /// The answer for the client, unless the request is sent to the next server.
        response: Response<Body>,
        /// True if the server cannot have read the request. It is then sent to the next server,
        /// unseen by the client.
        unread: bool,
    },
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

/// The reason that a server was not started. The text is for the operator's log; no client reads
/// it.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The user has to sign in again before a server can be made.
    #[error("there is no usable credential for the user")]
    Credentials(#[source] BoxError),
    /// A server cannot be made now; a later attempt may succeed.
    #[error("a backend cannot be started now")]
    Unavailable(#[source] BoxError),
    /// The server did not start, or ended instead of becoming ready. Its credential may be the
    /// reason: the registry may have it renewed and start another one.
    #[error("the backend did not start")]
    Failed(#[source] BoxError),
    /// The server runs and did not become ready: it takes too long, or does not answer as it
    /// should. The credential is not the reason.
    #[error("the backend did not become ready")]
    NotReady(#[source] BoxError),
    /// The server can never replace the one before it. Final: the session ends, so that its client
    /// begins a new one.
    #[error("the backend cannot replace the one before it")]
    Unfit(#[source] BoxError),
    /// The program or address of the server is missing. The credential is not the reason.
    #[error("there is no such backend")]
    Missing(#[source] BoxError),
}

impl From<Response<Body>> for Reply {
    fn from(response: Response<Body>) -> Self {
        Self::Response(response)
    }
}
