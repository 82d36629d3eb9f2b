//! An exchange of a session, by its conversation.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response};
use tracing::{Instrument, Span};

use super::serve_error::ServeError;
use crate::{
    exchange::{strip_client_headers, strip_session_id},
    ports::{Body, Caller, DetachReason, EndReason, Outcome, SessionError},
    servers::conversation,
    state::{EndCondition, RegistryState, Session},
};

/// An exchange of a session. Its end counts as activity, and so does its beginning.
struct ActivityGuard<'a>(&'a RegistryState, &'a Session);

/// Serves a request of a session, and sets `session_span` to its span.
pub(super) async fn serve_session(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    session: &Arc<Session>,
    request: Request<Bytes>,
    session_span: &mut Option<Span>,
) -> Result<Response<Body>, ServeError> {
    let span = session_span.insert(session.span.clone()).clone();
    session.bind_caller(caller);
    converse(state, session, request).instrument(span).await
}

async fn converse(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    request: Request<Bytes>,
) -> Result<Response<Body>, ServeError> {
    let method = request.method().clone();
    let _activity = ActivityGuard::new(state, session);
    if method == Method::GET {
        detach_if_gone(state, session);
    }
    let conversation = conversation::of(state, session).await?;
    let response = match conversation.serve(strip_client_headers(request)).await {
        Outcome::Answer(response) | Outcome::Opened(response) => {
            note_answer(state, session);
            response
        }
        Outcome::End(response) => {
            let reason = if method == Method::DELETE {
                EndReason::Deleted
            } else {
                EndReason::Unrevivable
            };
            state.end(session, reason, EndCondition::Always);
            response
        }
        Outcome::Unserved(SessionError::Ended) if state.table.is_closed() => {
            return Err(SessionError::ShuttingDown.into());
        }
        Outcome::Unserved(error) => return Err(error.into()),
    };
    Ok(strip_session_id(response))
}

/// The failures of a user are forgotten when any of the user's servers answers.
fn note_answer(state: &RegistryState, session: &Session) {
    if state.start_backoffs.any() && session.server().is_some_and(|current| current.server.has_answered()) {
        state.start_backoffs.reset(&session.user);
    }
}

/// A listening stream asks for no server, so nothing else would notice a useless one.
fn detach_if_gone(state: &RegistryState, session: &Session) {
    if let Some(current) = session.server()
        && current.server.is_gone()
    {
        state.detach(session, &current, DetachReason::BackendDied);
    }
}

impl<'a> ActivityGuard<'a> {
    fn new(state: &'a RegistryState, session: &'a Session) -> Self {
        state.touch(session);
        Self(state, session)
    }
}

impl Drop for ActivityGuard<'_> {
    fn drop(&mut self) {
        self.0.touch(self.1);
    }
}
