//! One session at the server: its id there, the user's token on each message, and its end.
//!
//! A session that the server has forgotten is [opened again](Self::reopen) before the conversation
//! sees the refusal, since the server has not acted on the message and it can be sent again.

use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;
use tokio::{sync::Mutex as AsyncMutex, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    endpoint::{SessionHeaders, UpstreamRequest},
    error::HttpError,
    user::UserEndpoint,
};
use crate::link::inbox::Inbox;

pub(super) struct ServerSession {
    pub(super) inbox: Inbox,
    pub(super) user: UserEndpoint,
    state: Mutex<SessionHeaders>,
    /// Held while the session is reopened.
    pub(super) reopening: Arc<AsyncMutex<()>>,
    /// Reopenings in progress; the end waits for them.
    pub(super) tasks: TaskTracker,
    /// Cancelled when the server has received `notifications/initialized`.
    pub(super) initialized: CancellationToken,
    /// Cancelled when the session cannot continue.
    pub(super) lost: CancellationToken,
    /// Cancelled at the end: whatever is in progress ends.
    pub(super) ended: CancellationToken,
}

impl ServerSession {
    /// A session that the server does not know yet.
    pub(super) fn new(inbox: Inbox, user: UserEndpoint) -> Arc<Self> {
        Arc::new(Self {
            inbox,
            user,
            state: Mutex::default(),
            reopening: Arc::default(),
            tasks: TaskTracker::new(),
            initialized: CancellationToken::new(),
            lost: CancellationToken::new(),
            ended: CancellationToken::new(),
        })
    }

    /// Sends a request of an open session, which may depend on the session's headers, and reopens a
    /// session that the server has forgotten. Returns the response, of any status, and the headers
    /// of the request.
    ///
    /// # Errors
    ///
    /// Any [`HttpError`] except those of a response.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: impl Fn(&SessionHeaders) -> UpstreamRequest,
    ) -> Result<(reqwest::Response, SessionHeaders), HttpError> {
        let mut reopened = false;
        loop {
            let headers = self.headers();
            let response = self.send_as(&request(&headers), &headers).await?;
            let may_be_forgotten = headers.session.is_some() && may_mean_forgotten(response.status());
            if !may_be_forgotten
                || mem::replace(&mut reopened, true)
                || !self.reopen(&headers, response.status()).await?
            {
                return Ok((response, headers));
            }
        }
    }

    /// Sends a request with these headers, without reopening the session: for the handshake, and
    /// for a stream that only the session in which it began can resume.
    pub(super) async fn send_as(
        &self,
        request: &UpstreamRequest,
        headers: &SessionHeaders,
    ) -> Result<reqwest::Response, HttpError> {
        self.user.send(request, headers).await
    }

    /// Ends the reopening in progress, and then the session at the server, if there is one. A
    /// failure is only logged: the server expires the session by itself.
    pub(super) async fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let headers = mem::take(&mut *self.state());
        if headers.session.is_none() {
            return;
        }
        let (endpoint, token) = (&self.user.endpoint, self.user.last_token());
        let delete = endpoint.send(UpstreamRequest::Delete, &headers, token.as_ref());
        let outcome = timeout(endpoint.config.stop_grace, delete).await;
        if !matches!(outcome, Ok(Ok(_))) {
            tracing::debug!("cannot delete the session at the MCP server");
        }
    }

    pub(super) fn headers(&self) -> SessionHeaders {
        self.state().clone()
    }

    pub(super) fn set_headers(&self, headers: SessionHeaders) {
        *self.state() = headers;
    }

    fn state(&self) -> MutexGuard<'_, SessionHeaders> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that has forgotten a session answers 404 (MCP 2025-11-25, transports, "Session
/// Management"); some answer 400.
pub(super) fn may_mean_forgotten(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST)
}

impl fmt::Debug for ServerSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerSession")
            .field("link", &self.inbox.number)
            .finish_non_exhaustive()
    }
}
