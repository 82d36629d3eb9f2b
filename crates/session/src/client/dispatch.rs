//! Dispatch of one exchange at the MCP endpoint: caller, and session by its id.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use tracing::Span;

use super::{serve_error::ServeError, serve_session::serve_session, without_id};
use crate::{
    exchange::MCP_SESSION_ID,
    jsonrpc::Message,
    ports::{Body, Caller, SessionError, SessionKey},
    state::{Lookup, RegistryState, Session},
};

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
    let response = dispatch(state, request, &mut session).await.unwrap_or_else(|error| {
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
async fn dispatch(
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
        (None, _) => without_id::serve(state, &caller, request, session_span).await,
        (Some(_), _) if state.host.ignores_session_id(request.headers()) => {
            without_id::serve(state, &caller, request, session_span).await
        }
        // It is unknown which of them is meant.
        (Some(_), Some(_)) => Err(ServeError::UnknownSession(state.config.unknown_status)),
        (Some(id), None) => {
            let session = find(state, &caller, id)?;
            serve_session(state, &caller, &session, request, session_span).await
        }
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
