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
    activity_guard::ActivityGuard,
    admission,
    headers::{MCP_SESSION_ID, full_body, guard_body, strip_client_headers, strip_session_id},
    jsonrpc,
    serve_error::ServeError,
};
use crate::{
    backends::{
        backend_task,
        renew::renew,
        start::{StartBackendError, start},
    },
    error_chain::error_chain,
    ports::{AuthenticatedAt, BackendGone, Body, Caller, DetachReason, EndReason, Event, SpawnError, SpawnPurpose},
    state::{
        AttachedBackend, EndCondition, Lifecycle, Phase, RegistryState, RenewalOutcome, Session, SessionId, TableClosed,
    },
    sync::timeout_at,
};

/// The largest answer to `initialize` that is read. Servers send instructions there, not data.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// A session that is being opened. Dropping it ends the session unless it is open by then.
struct Opening<'a> {
    state: &'a Arc<RegistryState>,
    session: Arc<Session>,
}

/// The reason that an attempt to open a session failed.
enum OpenError {
    Refused(ServeError),
    /// The backend did not start, or was gone before it had answered. With a renewed credential it
    /// may.
    BackendDied(StartBackendError),
}

/// The answer of a backend to `initialize`, and the backend.
struct Answered {
    answer: Answer,
    backend: Arc<AttachedBackend>,
}

enum Answer {
    /// The handshake succeeded, or its answer is a stream, which has not ended yet.
    Accepted(Response<Body>),
    /// The backend refused the handshake.
    Rejected(Response<Body>),
    Unreadable,
}

/// Opens a session with the client's `initialize`, and sets `session_span` to its span. A backend
/// that ended at its start is started once more if the credential could be renewed.
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
        tracing::error!(%error, "session not opened");
        ServeError::Internal
    })?;
    let now = Instant::now();
    let (grant, user) = (caller.grant.clone(), caller.user.clone());
    let session = Session::new(id.key(), grant, user, permit, Lifecycle::opening(now), now);
    let session = Arc::new(session);
    session.bind_caller(caller);
    let span = session_span.insert(session.span.clone()).clone();
    let inserted = state.table.insert(Arc::clone(&session));
    inserted.map_err(|TableClosed| ServeError::ShuttingDown)?;
    let opening = Opening { state, session };
    opening.check_revocation(caller, request.extensions().get().copied())?;
    let Answered { answer, backend } = opening.handshake(caller, request).instrument(span).await?;
    match answer {
        Answer::Accepted(mut response) => {
            let activity = opening.complete(&backend)?;
            response.headers_mut().insert(MCP_SESSION_ID, id.into_header());
            state.observer.on(Event::Opened);
            Ok(guard_body(response, activity))
        }
        // The answer of a backend that is being stopped, since the grant has ended, is not for the
        // client.
        Answer::Rejected(_) if opening.session.is_revoked() => Err(opening.error(&StartBackendError::SessionEnded)),
        Answer::Rejected(response) => Ok(response),
        Answer::Unreadable => Err(opening.error(&StartBackendError::SessionEnded)),
    }
}

impl Opening<'_> {
    /// Refuses a grant that has ended since its bearer was checked. The session is in the table by
    /// now, so that a later revocation finds it there.
    fn check_revocation(&self, caller: &Caller, checked: Option<AuthenticatedAt>) -> Result<(), ServeError> {
        let revocations = &self.state.revocations;
        if checked.is_some_and(|checked| revocations.revoked_since(checked, &caller.grant, &caller.user)) {
            self.state.end(&self.session, EndReason::Revoked, EndCondition::Always);
            return Err(self.error(&StartBackendError::SessionEnded));
        }
        Ok(())
    }

    /// Has a backend answer `initialize`, and another one if the first ended at its start and the
    /// credential could be renewed.
    async fn handshake(&self, caller: &Caller, request: Request<Bytes>) -> Result<Answered, ServeError> {
        let generation = self.state.renewal_gate.generation();
        let error = match self.attempt(request.clone()).await {
            Ok(answered) => return Ok(answered),
            Err(OpenError::Refused(error)) => return Err(error),
            Err(OpenError::BackendDied(error)) => error,
        };
        match renew(self.state, &caller.user, &caller.credentials, generation).await {
            RenewalOutcome::Renewed => {
                tracing::info!(session = %self.session.tag, "credential renewed; starting the backend again");
                self.attempt(request).await.map_err(|error| match error {
                    OpenError::Refused(error) => error,
                    OpenError::BackendDied(error) => self.error(&error),
                })
            }
            RenewalOutcome::SignInRequired => Err(ServeError::SignInRequired),
            RenewalOutcome::Unchanged => Err(self.error(&error)),
        }
    }

    /// Starts a backend and has it answer. Both share one limit: a server that never answers has
    /// not started.
    async fn attempt(&self, request: Request<Bytes>) -> Result<Answered, OpenError> {
        let (state, session) = (self.state, &self.session);
        let deadline = Instant::now() + state.config.start_timeout;
        let started = start(state, session, None, SpawnPurpose::Opening).await;
        let started = started.map_err(|error| {
            if error.may_be_revoked_credential() {
                self.backend_died(error)
            } else {
                OpenError::Refused(self.error(&error))
            }
        })?;
        let backend = backend_task::attach(state, session, started, None)
            .ok_or_else(|| OpenError::Refused(self.error(&StartBackendError::SessionEnded)))?;
        let _in_flight = Arc::clone(&backend).begin_exchange();
        let response = timeout_at(deadline, backend.backend.serve(strip_client_headers(request))).await;
        // A timeout polls its future before it checks the clock: it lets through an answer of after
        // the deadline, and a stream of then may only say that there is no answer yet.
        let response = response.ok().filter(|_| Instant::now() <= deadline);
        let response = response.ok_or_else(|| OpenError::Refused(self.error(&StartBackendError::TimedOut)))?;
        if response.extensions().get::<BackendGone>().is_some() {
            state.detach(session, &backend, DetachReason::BackendDied);
            return Err(self.backend_died(StartBackendError::SessionEnded));
        }
        let answer = classify(strip_session_id(response)).await;
        Ok(Answered { answer, backend })
    }

    /// Opens the session to the client. The exchange is in flight until the answer with the id has
    /// been sent.
    fn complete(&self, backend: &Arc<AttachedBackend>) -> Result<ActivityGuard, ServeError> {
        backend.mark_answered();
        // Not if the backend has died meanwhile, the grant has ended, or the registry is closing.
        if !self.session.lock().lifecycle.open(backend, Instant::now()) {
            return Err(self.error(&StartBackendError::SessionEnded));
        }
        Ok(ActivityGuard::new(self.state, &self.session))
    }

    /// The backend ended by itself, unless the session ended first.
    fn backend_died(&self, error: StartBackendError) -> OpenError {
        if self.session.is_revoked() || self.state.table.is_closed() {
            OpenError::Refused(self.error(&error))
        } else {
            OpenError::BackendDied(error)
        }
    }

    fn error(&self, error: &StartBackendError) -> ServeError {
        let _span = self.session.span.enter();
        let (tag, reason) = (&self.session.tag, error_chain(error));
        match error {
            StartBackendError::SessionEnded if self.state.table.is_closed() => ServeError::ShuttingDown,
            // Whatever failed: the end of a grant often comes before the failure that it causes.
            _ if self.session.is_revoked() => {
                tracing::info!(session = %tag, reason, "the user has to sign in again");
                ServeError::SignInRequired
            }
            StartBackendError::Spawn(SpawnError::Credentials(_)) => {
                tracing::info!(session = %tag, reason, "the user has to sign in again");
                ServeError::SignInRequired
            }
            StartBackendError::Spawn(SpawnError::Unavailable(_)) => {
                tracing::warn!(session = %tag, reason, "no backend can be started now");
                ServeError::Unavailable
            }
            StartBackendError::Spawn(SpawnError::Failed(_) | SpawnError::NotReady(_))
            | StartBackendError::TimedOut
            | StartBackendError::SessionEnded => {
                tracing::warn!(session = %tag, reason, "session not opened: its backend did not start");
                ServeError::BackendNotStarted
            }
        }
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

async fn classify(response: Response<Body>) -> Answer {
    if response.status() != StatusCode::OK {
        return Answer::Rejected(response);
    }
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream")) {
        return Answer::Accepted(response);
    }
    let (parts, body) = response.into_parts();
    match limited(body).collect().await {
        Ok(answer) => {
            let answer = answer.to_bytes();
            let success = jsonrpc::is_success(&answer);
            let response = Response::from_parts(parts, full_body(answer));
            if success {
                Answer::Accepted(response)
            } else {
                Answer::Rejected(response)
            }
        }
        Err(error) => {
            tracing::warn!(error, "answer to initialize cannot be read");
            Answer::Unreadable
        }
    }
}

/// The body, failing beyond [`MAX_ANSWER_BYTES`]. Boxed again, so that the future that reads it is
/// plainly `Send`.
fn limited(body: Body) -> Body {
    Limited::new(body, MAX_ANSWER_BYTES).boxed_unsync()
}
