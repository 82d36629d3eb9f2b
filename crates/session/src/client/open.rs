//! The opening of a session: permit, conversation, handshake, record, id.
//!
//! A failed opening leaves nothing behind, and a client that goes away cancels its opening: until
//! the record is written, a guard ends the session.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{admission, serve_error::ServeError};
use crate::{
    error_chain::error_chain,
    exchange::{MCP_SESSION_ID, strip_client_headers, strip_session_id},
    ports::{Body, Caller, EndReason, Event, Outcome, SessionError},
    records::write_behind,
    servers::conversation,
    state::{EndCondition, Identity, KnownInitialize, Lifecycle, Phase, RegistryState, Session, SessionId},
};

/// A session that is being opened. Dropping it ends the session unless it has been opened.
struct Opening<'a> {
    state: &'a Arc<RegistryState>,
    session: Arc<Session>,
    opened: bool,
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
    let now = Instant::now();
    // Before a dormant session is evicted for one that cannot start.
    admission::check_backoff(state, &caller.user, now)?;
    let permit = admission::admit(state, &caller.user)?;
    let id = SessionId::generate().map_err(|error| {
        tracing::error!(%error, "session not opened: there are no random bytes for its id");
        ServeError::Internal
    })?;
    let identity = Identity {
        key: id.key(),
        grant: caller.grant.clone(),
        user: caller.user.clone(),
        implicit: false,
    };
    let session = Arc::new(Session::new(identity, permit, Lifecycle::opening(), now, now));
    session.bind_caller(caller);
    let span = session_span.insert(session.span.clone()).clone();
    let mut opening = Opening {
        state,
        session,
        opened: false,
    };
    opening.run(request, id).instrument(span).await
}

impl Opening<'_> {
    async fn run(&mut self, request: Request<Bytes>, id: SessionId) -> Result<Response<Body>, ServeError> {
        let (state, session) = (self.state, &self.session);
        let conversation = conversation::make(state, session, None).map_err(|error| {
            tracing::error!(error, "session not opened: there is no conversation for it");
            ServeError::Internal
        })?;
        session.lock().conversation = Some(Arc::clone(&conversation));
        if !state.table.insert(session) {
            return Err(SessionError::ShuttingDown.into());
        }
        admission::check_revoked(state, session, request.extensions())?;
        let outcome = conversation.serve(strip_client_headers(request)).await;
        if let Outcome::Opened(response) = outcome {
            return self.complete(strip_session_id(response), id).await;
        }
        // The answer of a server that is being stopped, since the grant has ended, is not for the
        // client.
        if session.is_revoked() {
            return Err(SessionError::SignInRequired.into());
        }
        match outcome {
            Outcome::Answer(response) | Outcome::Opened(response) | Outcome::End(response) => {
                Ok(strip_session_id(response))
            }
            Outcome::Unserved(_) if state.table.is_closed() => Err(SessionError::ShuttingDown.into()),
            Outcome::Unserved(error) => Err(error.into()),
        }
    }

    /// Opens the session to the client. The record is written before the client has the id, so the
    /// session outlives a crash of the process.
    async fn complete(&mut self, mut response: Response<Body>, id: SessionId) -> Result<Response<Body>, ServeError> {
        let (state, session) = (self.state, &self.session);
        {
            let mut locked = session.lock();
            // Not if the server has died meanwhile, the grant has ended, or the registry is
            // closing.
            if !locked.lifecycle.open(Instant::now()) {
                drop(locked);
                return Err(self.not_opened().into());
            }
            state.record_answer(session, &mut locked);
            if let Some(server) = locked.lifecycle.server() {
                server.opened.notify_waiters();
            }
        }
        if let Err(error) = write_behind::save_opened(state, session).await {
            let reason = error_chain(&error);
            tracing::error!(reason, "session not opened: its record cannot be written");
            return Err(SessionError::Unavailable.into());
        }
        self.note_initialize();
        self.opened = true;
        response.headers_mut().insert(MCP_SESSION_ID, id.into_header());
        state.observer.on(Event::Opened);
        Ok(response)
    }

    /// Requests of the grant without a session id belong to this session from now on.
    fn note_initialize(&self) {
        let (state, session) = (self.state, &self.session);
        let conversation = session.lock().conversation.clone();
        // Outside of the lock: this is a call of a port.
        let snapshot = conversation.filter(|_| state.records.is_none());
        let snapshot = snapshot.and_then(|conversation| conversation.snapshot());
        let known = KnownInitialize {
            key: Some(session.key),
            snapshot,
        };
        let locked = session.lock();
        // A revocation ends the session first, and then forgets this.
        if locked.lifecycle.is_open() {
            state
                .initializes
                .set(&session.grant, &session.user, known, Instant::now());
        }
    }

    fn not_opened(&self) -> SessionError {
        if self.session.is_revoked() {
            SessionError::SignInRequired
        } else if self.state.table.is_closed() {
            SessionError::ShuttingDown
        } else {
            let (now, mut locked) = (Instant::now(), self.session.lock());
            if let Phase::Opening {
                failure: Some(error), ..
            } = locked.lifecycle.phase()
            {
                return *error;
            }
            let retry_after = self.state.record_failure(&self.session, &mut locked, now);
            SessionError::NotStarted { retry_after }
        }
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.opened {
            self.state
                .end(&self.session, EndReason::NotOpened, EndCondition::Always);
        }
    }
}
