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
    ports::{BackendGone, Body, Caller, DetachReason, EndReason, NotProcessed, SessionKey, SessionSpan},
    state::{EndCondition, Lookup, RegistryState, Session, SessionError},
};

/// The number of times that a request is sent again which its backend has not processed.
const MAX_RESENDS: usize = 3;

/// Serves one exchange.
pub(crate) async fn serve(state: &Arc<RegistryState>, request: Request<Bytes>) -> Response<Body> {
    // A cheap handle: an error has to echo the request id even when the backend has the request.
    let body = request.body().clone();
    let is_post = request.method() == Method::POST;
    let mut session_span = None;
    let mut response = match route(state, request, &mut session_span).await {
        Ok(response) => response,
        Err(error) if is_post => error.into_response(Message::parse(&body).id),
        Err(error) => error.into_response(None),
    };
    if let Some(span) = session_span {
        response.extensions_mut().insert(SessionSpan(span));
    }
    response
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
    let response = attached.backend.serve(strip_client_headers(request)).await;
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
        let response = in_flight.attached.backend.serve(request.clone()).await;
        if resends == 0 || response.extensions().get::<NotProcessed>().is_none() {
            break (in_flight, strip_session_id(response));
        }
        resends -= 1;
        state.detach(session, &in_flight.attached, DetachReason::BackendDied);
    };
    if proves_life(&response) && in_flight.attached.mark_answered() {
        session.lock().lifecycle.backoff.reset();
    }
    Ok(guard_body(response, (activity, in_flight)))
}

/// True if a response shows that the backend answers requests. Errors, and 202 for a message, can
/// come from what is before it.
fn proves_life(response: &Response<Body>) -> bool {
    response.status() == StatusCode::OK && response.extensions().get::<BackendGone>().is_none()
}
