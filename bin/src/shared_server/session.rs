//! One session at the shared server: its id there, the user's token on each message, renewal,
//! reopening, and the end.
//!
//! Each message takes the user's current token, so a renewal changes nothing here. Two refusals are
//! handled before the bridge sees them, since the server has not acted on the message and it can be
//! sent again:
//! - A token that is not accepted (401) is renewed, once for a message and within the limits of
//!   `renewal_limiter`. A 403 is about permission: another token of the user would have no more.
//! - A session that the server has forgotten (404, MCP 2025-11-25, transports, "Session
//!   Management") is opened again from the bridge's snapshot.

mod listening;
mod pump;
mod recovery;
mod responses;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
};

use bridge::Bridge;
use http::{HeaderValue, StatusCode};
use secrecy::SecretString;
use session::ports::{Credentials, UserId};
use tokio::{sync::Mutex as AsyncMutex, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    endpoint::{Endpoint, SessionHeaders, UpstreamRequest},
    error::SharedServerError,
};
pub(crate) use pump::pump;

/// The capacity of the byte stream between a bridge and its session here, in bytes.
pub(crate) const PIPE_CAPACITY: usize = 64 * 1024;

pub(crate) struct SharedServerSession {
    endpoint: Arc<Endpoint>,
    credentials: Arc<dyn Credentials>,
    user: UserId,
    config: bridge::Config,
    /// Names the session in logs.
    tag: Arc<str>,
    /// Replaced as a whole: an id, and the version that was negotiated with it.
    headers: Mutex<SessionHeaders>,
    /// The token that was sent last, for the final DELETE: no token is renewed for that.
    last_token: Mutex<Option<SecretString>>,
    /// The bridge over this session, which has the snapshot of the handshake. Set once the
    /// handshake has been replayed, or at once if there is none to replay; never on a session that
    /// only replays.
    bridge: OnceLock<Weak<Bridge>>,
    /// Held while the session is reopened.
    reopening: Arc<AsyncMutex<()>>,
    /// Renewals and reopenings in progress; the end waits for them.
    tasks: TaskTracker,
    /// Cancelled when the pump has stopped: whatever is in progress ends.
    ended: CancellationToken,
    /// Cancelled when the server has received `notifications/initialized`, or never will.
    initialized: CancellationToken,
}

impl SharedServerSession {
    /// A session that the server does not know yet.
    pub(crate) fn new(
        endpoint: Arc<Endpoint>,
        credentials: Arc<dyn Credentials>,
        user: UserId,
        config: bridge::Config,
        tag: Arc<str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            endpoint,
            credentials,
            user,
            config,
            tag,
            headers: Mutex::default(),
            last_token: Mutex::default(),
            bridge: OnceLock::new(),
            reopening: Arc::default(),
            tasks: TaskTracker::new(),
            ended: CancellationToken::new(),
            initialized: CancellationToken::new(),
        })
    }

    /// Sets the bridge over this session. Only the first call counts.
    pub(crate) fn set_bridge(&self, bridge: &Arc<Bridge>) {
        // A second bridge cannot exist: the byte stream has one other end.
        let _ = self.bridge.set(Arc::downgrade(bridge));
    }

    /// Sends a request of an open session, which may depend on the session's headers, and reopens a
    /// session that the server has forgotten. Returns the response, of any status, and the headers
    /// of the request.
    ///
    /// # Errors
    ///
    /// Any [`SharedServerError`] except those of a response body.
    async fn send(
        self: &Arc<Self>,
        request: impl Fn(&SessionHeaders) -> UpstreamRequest,
    ) -> Result<(reqwest::Response, SessionHeaders), SharedServerError> {
        let mut reopened = false;
        loop {
            let headers = self.headers().clone();
            let response = self.send_as(&request(&headers), &headers).await?;
            let forgotten = response.status() == StatusCode::NOT_FOUND && headers.session.is_some();
            if !forgotten || std::mem::replace(&mut reopened, true) {
                return Ok((response, headers));
            }
            self.reopen(&headers).await?;
        }
    }

    /// Sends a request with these headers, without reopening the session: for the handshake, and
    /// for a stream that only the session in which it began can resume.
    async fn send_as(
        self: &Arc<Self>,
        request: &UpstreamRequest,
        headers: &SessionHeaders,
    ) -> Result<reqwest::Response, SharedServerError> {
        let mut credential = self.credentials.current().await?;
        let mut renewed = false;
        loop {
            let token = &credential.access_token;
            *self.last_token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
            let response = self.endpoint.send(request, headers, Some(token)).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || std::mem::replace(&mut renewed, true) {
                return Ok(response);
            }
            match self.replacement_for(&credential).await? {
                Some(replacement) => credential = replacement,
                None => return Ok(response),
            }
        }
    }

    /// Ends the tasks in progress, and then the session at the server. The pump must have stopped.
    async fn end(&self) {
        self.ended.cancel();
        self.initialized.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.delete().await;
    }

    /// Ends the session at the server, if there is one. A failure is only logged: the server
    /// expires the session by itself.
    async fn delete(&self) {
        let headers = std::mem::take(&mut *self.headers());
        if headers.session.is_none() {
            return;
        }
        let token = self.last_token.lock().unwrap_or_else(PoisonError::into_inner).take();
        let delete = self.endpoint.send(&UpstreamRequest::Delete, &headers, token.as_ref());
        let outcome = timeout(self.endpoint.config.stop_grace, delete).await;
        if !matches!(outcome, Ok(Ok(_))) {
            tracing::debug!(session = %self.tag, "cannot delete the session at the server");
        }
    }

    /// Stores the outcome of a handshake.
    fn opened(&self, session: Option<HeaderValue>, version: &str) {
        let session = session.map(|mut id| {
            id.set_sensitive(true);
            id
        });
        *self.headers() = SessionHeaders {
            session,
            version: HeaderValue::from_str(version).ok(),
        };
    }

    fn headers(&self) -> MutexGuard<'_, SessionHeaders> {
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SharedServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedServerSession")
            .field("tag", &self.tag)
            .finish_non_exhaustive()
    }
}
