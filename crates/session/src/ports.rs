//! The traits that an embedder implements for the registry.
//!
//! A [`Spawner`] makes a [`Backend`] for a session, which serves the whole exchange. Who wants a
//! session's streams, calls and settings to outlive its servers implements [`Host`] instead: it
//! makes a [`Conversation`] for each session, which starts the [`Server`]s.
//!
//! [`Credentials`] are a user's upstream token and its expiry; [`Records`] keep sessions over
//! restarts; an [`Observer`] counts events. Nothing here knows of processes, JSON-RPC framing or
//! OAuth. All traits are object-safe and are held as `Arc<dyn _>`.

mod conversation;
mod observer;
mod records;
mod route;
mod session_error;
mod spawner;

use std::{fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use secrecy::SecretString;
use tokio::time::Instant;

pub(crate) use self::session_error::whole_seconds;
pub use self::{
    conversation::{
        Conversation, ConversationInfo, Host, Outcome, Server, ServerNumber, SessionControl, SessionHandle, StartOrder,
    },
    observer::{
        Clock, DetachReason, EndReason, Event, NoopObserver, Observer, QuotaScope, SpawnFailure, SpawnPurpose,
        SystemClock,
    },
    records::{Change, LastInitialize, Record, Records, RecordsError, RevokedSubject, Seal, SessionKey},
    route::Route,
    session_error::SessionError,
    spawner::{Backend, Reply, SpawnError, SpawnOrder, Spawner},
};
pub use futures_core::future::BoxFuture;

/// An error of an embedder's implementation or of a response body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

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
