//! Dispatch of one exchange at the MCP endpoint: caller, session, backend.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use super::{
    exchange::{ActivityGuard, MCP_SESSION_ID, full_body, guard_body, strip_client_headers, strip_session_id},
    jsonrpc::{Message, MessageKind},
    open, parked_streams,
    serve_error::ServeError,
};
use crate::{
    backends::revive,
    ports::{Body, Caller, DetachReason, EndReason, Reply, SessionError, SessionKey},
    state::{EndCondition, Lookup, RegistryState, Session},
};

/// The number of times that a request is sent again which its backend has not processed.
const MAX_RESENDS: usize = 3;

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
    if request.method() == Method::DELETE {
        state.end(session, EndReason::Deleted, EndCondition::Always);
        let mut response = Response::new(full_body(Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        Ok(response)
    } else if request.method() == Method::GET {
        listen(state, session, request).await
    } else {
        send(state, session, request).await
    }
}

/// Serves a GET stream. It shows that the client is there, not that it will come back: it does not
/// keep the session from becoming dormant, and does not revive it.
async fn listen(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    request: Request<Bytes>,
) -> Result<Response<Body>, ServeError> {
    let attached = loop {
        match session.backend() {
            Some(attached) if attached.backend.is_gone() => {
                state.detach(session, &attached, DetachReason::BackendDied);
            }
            attached => break attached,
        }
    };
    if !session.lock().lifecycle.touch(Instant::now()) {
        return Err(SessionError::Ended.into());
    }
    state.changes.mark_changed(session);
    let Some(attached) = attached else {
        return parked_streams::park(state, session);
    };
    let response = match attached.backend.serve(strip_client_headers(request)).await {
        Reply::Response(response) | Reply::Gone { response, .. } => response,
    };
    Ok(parked_streams::until_retired(strip_session_id(response), &attached))
}

/// Serves a POST.
async fn send(
    state: &Arc<RegistryState>,
    session: &Arc<Session>,
    request: Request<Bytes>,
) -> Result<Response<Body>, ServeError> {
    let mut backend = {
        let lifecycle = &mut session.lock().lifecycle;
        if !lifecycle.begin_exchange(Instant::now()) {
            return Err(SessionError::Ended.into());
        }
        lifecycle.backend().cloned()
    };
    let activity = ActivityGuard::new(state, session);
    let request = strip_client_headers(request);
    let mut resends = MAX_RESENDS;
    let (in_flight, response) = loop {
        let in_flight = revive::begin_exchange(state, session, backend.take()).await?;
        match in_flight.attached.backend.serve(request.clone()).await {
            Reply::Gone { unread: true, .. } if resends > 0 => {
                resends -= 1;
                state.detach(session, &in_flight.attached, DetachReason::BackendDied);
            }
            Reply::Gone { response, .. } => break (in_flight, response),
            Reply::Response(response) => {
                // Errors, and 202 for a message, can come from what is before the server.
                if response.status() == StatusCode::OK && in_flight.attached.mark_answered() {
                    session.lock().lifecycle.backoff.reset();
                }
                break (in_flight, response);
            }
        }
    };
    Ok(guard_body(strip_session_id(response), (activity, in_flight)))
}
