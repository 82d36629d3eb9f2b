//! The opening of a session: permit, backend, handshake, id.
//!
//! A failed opening leaves nothing behind, and a client that goes away cancels its opening: until
//! the answer is known to be good, a guard ends the session.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{
    admission,
    exchange::{ActivityGuard, MCP_SESSION_ID, full_body, guard_body, strip_client_headers, strip_session_id},
    jsonrpc,
    serve_error::ServeError,
};
use crate::{
    backends::{
        backend_task,
        renew::retry_after_renewal,
        start::{StartBackendError, start},
    },
    ports::{AuthenticatedAt, Body, Caller, DetachReason, EndReason, Event, Reply, SessionError, SpawnPurpose},
    state::{AttachedBackend, EndCondition, Lifecycle, Phase, RegistryState, Session, SessionId},
    sync::timeout_at,
};

/// The largest answer to `initialize` that is read. Servers send instructions there, not data.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A session that is being opened. Dropping it ends the session unless it is open by then.
struct Opening<'a> {
    state: &'a Arc<RegistryState>,
    session: Arc<Session>,
}

/// The answer of a backend to `initialize`.
struct InitializeAnswer {
    response: Response<Body>,
    /// True if the handshake succeeded, or its answer is a stream, which has not ended yet.
    accepted: bool,
    backend: Arc<AttachedBackend>,
}

/// Opens a session with the client's `initialize`, and sets `session_span` to its span.
///
/// # Errors
///
/// Any [`ServeError`]. Nothing is left of the session then.
pub(super) async fn open(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    request: Request<Bytes>,
    session_span: &mut Option<Span>,
) -> Result<Response<Body>, ServeError> {
    let permit = admission::admit(state, &caller.user)?;
    let id = SessionId::generate().map_err(|error| {
        tracing::error!(%error, "session not opened: there are no random bytes for its id");
        ServeError::Internal
    })?;
    let now = Instant::now();
    let (grant, user) = (caller.grant.clone(), caller.user.clone());
    let session = Session::new(id.key(), grant, user, permit, Lifecycle::opening(now), now);
    let session = Arc::new(session);
    session.bind_caller(caller);
    let span = session_span.insert(session.span.clone()).clone();
    if !state.table.insert(&session) {
        return Err(SessionError::ShuttingDown.into());
    }
    let opening = Opening { state, session };
    let opened = async {
        let opened = opening.run(request, id).await;
        opened.map_err(|error| error.into_session_error(state, &opening.session).into())
    };
    opened.instrument(span).await
}

impl Opening<'_> {
    async fn run(&self, request: Request<Bytes>, id: SessionId) -> Result<Response<Body>, StartBackendError> {
        let (state, session) = (self.state, &self.session);
        // The session is in the table by now, so that a later revocation finds it there.
        let checked = request.extensions().get::<AuthenticatedAt>();
        if checked.is_some_and(|checked| state.revocations.revoked_since(*checked, &session.grant, &session.user)) {
            state.end(session, EndReason::Revoked, EndCondition::Always);
            return Err(StartBackendError::SessionEnded);
        }
        let answer = retry_after_renewal(state, session, || self.attempt(request.clone())).await?;
        if answer.accepted {
            return self.complete(answer, id);
        }
        // The answer of a backend that is being stopped, since the grant has ended, is not for the
        // client.
        if session.is_revoked() {
            return Err(StartBackendError::SessionEnded);
        }
        Ok(answer.response)
    }

    /// Starts a backend and has it answer `initialize`. Both share one limit: a server that never
    /// answers has not started.
    async fn attempt(&self, request: Request<Bytes>) -> Result<InitializeAnswer, StartBackendError> {
        let (state, session) = (self.state, &self.session);
        let deadline = Instant::now() + state.config.start_timeout;
        let started = start(state, session, None, SpawnPurpose::Opening).await?;
        let backend = backend_task::attach(state, session, started, None).ok_or(StartBackendError::SessionEnded)?;
        let _in_flight = Arc::clone(&backend).begin_exchange();
        let response = timeout_at(deadline, backend.backend.serve(strip_client_headers(request))).await;
        // A timeout polls its future before it checks the clock: it lets through an answer of after
        // the deadline, and a stream of then may only say that there is no answer yet.
        let response = response.ok().filter(|_| Instant::now() <= deadline);
        let Reply::Response(response) = response.ok_or(StartBackendError::TimedOut)? else {
            state.detach(session, &backend, DetachReason::BackendDied);
            return Err(StartBackendError::BackendDied);
        };
        let (response, accepted) = classify(strip_session_id(response)).await?;
        Ok(InitializeAnswer {
            response,
            accepted,
            backend,
        })
    }

    /// Opens the session to the client. The exchange is in flight until the answer with the id has
    /// been sent.
    fn complete(&self, answer: InitializeAnswer, id: SessionId) -> Result<Response<Body>, StartBackendError> {
        let mut response = answer.response;
        answer.backend.mark_answered();
        // Not if the backend has died meanwhile, the grant has ended, or the registry is closing.
        if !self.session.lock().lifecycle.open(&answer.backend, Instant::now()) {
            return Err(StartBackendError::BackendDied);
        }
        let activity = ActivityGuard::new(self.state, &self.session);
        response.headers_mut().insert(MCP_SESSION_ID, id.into_header());
        self.state.observer.on(Event::Opened);
        Ok(guard_body(response, activity))
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let opening = matches!(self.session.lock().lifecycle.phase(), Phase::Opening { .. });
        if opening {
            self.state
                .end(&self.session, EndReason::NotOpened, EndCondition::Always);
        }
    }
}

/// Reads the answer to `initialize`, unless it is a stream. True if the backend has accepted.
async fn classify(response: Response<Body>) -> Result<(Response<Body>, bool), StartBackendError> {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_stream = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    let is_ok = response.status() == StatusCode::OK;
    if !is_ok || is_stream {
        return Ok((response, is_ok));
    }
    let (parts, body) = response.into_parts();
    // Boxed again, so that the future that reads it is plainly `Send`.
    let body = Limited::new(body, MAX_ANSWER_BYTES).boxed_unsync();
    let answer = body.collect().await.map_err(StartBackendError::Unreadable)?.to_bytes();
    let accepted = jsonrpc::is_success(&answer);
    Ok((Response::from_parts(parts, full_body(answer)), accepted))
}
