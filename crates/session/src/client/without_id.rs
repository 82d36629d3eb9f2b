//! Requests without a session id: the host says where each belongs ([`Route`]).
//!
//! The client cannot act on the end of a session that it has no id of. So a request whose session
//! ends while it is on its way is routed once more, and finds the one that is made in its place.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tracing::Span;

use super::{
    implicit::{find, find_or_make},
    last_initialize::{self, Found},
    open,
    serve_error::ServeError,
    serve_session::serve_session,
};
use crate::{
    exchange::full_body,
    jsonrpc::{Message, MessageKind},
    ports::{Body, Caller, Route, SessionError, SessionKey, Snapshot},
    state::{ImplicitName, RegistryState, Session},
};

/// The place of a request.
enum Place {
    Opens,
    Session(Arc<Session>),
    Reply(Response<Body>),
}

/// The number of times that a request is routed.
const MAX_ROUTES: usize = 2;

/// Serves a request without a session id, and sets `session_span` to the span of its session.
pub(super) async fn serve(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    request: Request<Bytes>,
    session_span: &mut Option<Span>,
) -> Result<Response<Body>, ServeError> {
    for _ in 0..MAX_ROUTES {
        let mut request = request.clone();
        let route = state.host.route(&mut request, caller);
        let session = match place(state, caller, route, &request).await? {
            Place::Opens => {
                require_initialize(&request)?;
                return open::open(state, caller, request, session_span).await;
            }
            Place::Reply(response) => return Ok(response),
            Place::Session(session) => session,
        };
        match serve_session(state, caller, &session, request, session_span).await {
            Err(ServeError::Session(SessionError::Ended)) => {}
            served => return served,
        }
    }
    Err(SessionError::Unavailable.into())
}

async fn place(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    mut route: Route,
    request: &Request<Bytes>,
) -> Result<Place, ServeError> {
    loop {
        let may_open = request.method() == Method::POST;
        match route {
            Route::Open => return Ok(Place::Opens),
            Route::Reply(response) => return Ok(Place::Reply(response)),
            // The client has no id of the session, so it is not the client's to end.
            Route::Tagged { .. } | Route::Implicit { .. } | Route::LastInitialize { .. }
                if request.method() == Method::DELETE =>
            {
                return Err(ServeError::NeedsSession);
            }
            Route::Tagged { tag, otherwise } => match tagged(state, caller, &tag) {
                Some(session) => return Ok(Place::Session(session)),
                None => route = *otherwise,
            },
            Route::Implicit { name } => {
                let key = SessionKey::implicit(&caller.grant, ImplicitName::Given(name));
                return implicit(state, caller, key, None, may_open, request);
            }
            Route::LastInitialize { opens } => {
                return match last_initialize::find(state, caller).await? {
                    Found::Session(session) => Ok(Place::Session(session)),
                    Found::Ended { key, snapshot } => {
                        implicit(state, caller, key, snapshot, may_open && opens, request)
                    }
                };
            }
        }
    }
}

/// The implicit session with this key, made from the handshake if there is one. If there is none
/// and it is not to be made, the answer is that of a client that has no session.
fn implicit(
    state: &Arc<RegistryState>,
    caller: &Arc<Caller>,
    key: SessionKey,
    handshake: Option<Snapshot>,
    may_open: bool,
    request: &Request<Bytes>,
) -> Result<Place, ServeError> {
    if may_open {
        return find_or_make(state, caller, key, handshake, request).map(Place::Session);
    }
    if let Some(session) = find(state, caller, &key) {
        return Ok(Place::Session(session));
    }
    if request.method() == Method::GET {
        return Err(ServeError::NeedsSession);
    }
    let mut response = Response::new(full_body(Bytes::new()));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(Place::Reply(response))
}

fn tagged(state: &RegistryState, caller: &Caller, tag: &Arc<str>) -> Option<Arc<Session>> {
    let of_grant = |session: &Session| session.grant == caller.grant && session.tag == *tag;
    let sessions = state.table.select(of_grant);
    sessions.into_iter().find(|session| !session.has_ended())
}

/// A new session begins with the handshake.
fn require_initialize(request: &Request<Bytes>) -> Result<(), ServeError> {
    if request.method() != Method::POST {
        return Err(ServeError::MissingSessionId);
    }
    match Message::parse(request.body()).kind {
        MessageKind::Initialize => Ok(()),
        MessageKind::Discover => Err(ServeError::MethodNotFound),
        MessageKind::Request | MessageKind::NotificationOrResponse => Err(ServeError::MissingSessionId),
        MessageKind::Malformed => Err(ServeError::Malformed),
        MessageKind::NotJson => Err(ServeError::NotJson),
    }
}
