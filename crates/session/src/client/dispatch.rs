//! Dispatch of one exchange at the MCP endpoint: caller, session, conversation.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use tracing::{Instrument, Span};

use super::{open, serve_error::ServeError};
use crate::{
    exchange::{MCP_SESSION_ID, strip_client_headers, strip_session_id},
    jsonrpc::{Message, MessageKind},
    ports::{Body, Caller, DetachReason, EndReason, Outcome, SessionError, SessionKey},
    servers::conversation,
    state::{EndCondition, Lookup, RegistryState, Session},
};

/// An exchange of a session. Its end counts as activity, and so does its beginning.
struct ActivityGuard<'a>(&'a RegistryState, &'a Session);

/// The answer of a registry to one exchange.
#[derive(Debug)]
pub struct Served {
    /// The answer for the client.
    pub response: Response<Body>,
    /// The span of the exchange's session, if it has one, so that an access log can have the
    /// session's fields.
    pub session: Option<Span>,
    /// True for a 401: the user's credential is gone for good, and only a new sign-in helps. The
    /// registry knows of no authorization server, so the answer has no `WWW-Authenticate`: the
    /// embedder adds it (RFC 6750 section 3), or answers in its own way.
    pub sign_in_required: bool,
}

/// Serves one exchange.
pub(crate) async fn serve(state: &Arc<RegistryState>, request: Request<Bytes>) -> Served {
    // A cheap handle: an error has to echo the request id even when the backend has the request.
    let body = request.body().clone();
    let is_post = request.method() == Method::POST;
    let (mut session, mut sign_in_required) = (None, false);
    let response = route(state, request, &mut session).await.unwrap_or_else(|error| {
        sign_in_required = matches!(error, ServeError::Session(SessionError::SignInRequired));
        let id = is_post.then(|| Message::parse(&body).id).flatten();
        error.into_response(id)
    });
    Served {
        response,
        session,
        sign_in_required,
    }
}

/// Sets `session_span` as soon as the session of the exchange is known.
async fn route(
    state: &Arc<RegistryState>,
    request: Request<Bytes>,
    session_span: &mut Option<Span>,
) -> Result<Response<Body>, ServeError> {
    let Some(caller) = request.extensions().get::<Arc<Caller>>().cloned() else {
        tracing::error!("request without a caller: the embedder of the registry has to authenticate it");
        return Err(ServeError::MissingCaller);
    };
    if ![Method::POST, Method::GET, Method::DELETE].contains(request.method()) {
        return Err(ServeError::MethodNotAllowed);
    }
    if state.table.is_closed() {
        return Err(SessionError::ShuttingDown.into());
    }
    let mut ids = request.headers().get_all(MCP_SESSION_ID).iter();
    match (ids.next(), ids.next()) {
        (None, _) if request.method() == Method::POST => {
            require_initialize(request.body())?;
            open::open(state, &caller, request, session_span).await
        }
        (None, _) => Err(ServeError::MissingSessionId),
        // It is unknown which of them is meant.
        (Some(_), Some(_)) => Err(ServeError::UnknownSession(state.config.unknown_status)),
        (Some(id), None) => {
            let session = find(state, &caller, id)?;
            let span = session_span.insert(session.span.clone()).clone();
            session.bind_caller(&caller);
            serve_session(state, &session, request).instrument(span).await
        }
    }
}

/// Without a session there is only the handshake.
fn require_initialize(body: &[u8]) -> Result<(), ServeError> {
    match Message::parse(body).kind {
        MessageKind::Initialize => Ok(()),
        MessageKind::Discover => Err(ServeError::MethodNotFound),
        MessageKind::Request | MessageKind::NotificationOrResponse => Err(ServeError::MissingSessionId),
        MessageKind::Malformed => Err(ServeError::Malformed),
        MessageKind::NotJson => Err(ServeError::NotJson),
    }
}

fn find(state: &RegistryState, caller: &Caller, id: &HeaderValue) -> Result<Arc<Session>, ServeError> {
    let lookup = SessionKey::from_header(id).map_or(Lookup::Unknown, |key| state.table.find(&key));
    match lookup {
        Lookup::Session(session) if session.grant == caller.grant => Ok(session),
        Lookup::Session(session) => {
            tracing::warn!(session = %session.tag, "session belongs to another grant");
            Err(ServeError::WrongGrant)
        }
        Lookup::Ended => Err(SessionError::Ended.into()),
        Lookup::Unknown => Err(ServeError::UnknownSession(state.config.unknown_status)),
    }
}

async fn serve_session(
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
