//! The edge of an exchange: headers, bodies, and the guard that keeps its session from becoming
//! dormant.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Request, Response, header};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;

use crate::{
    ports::Body,
    state::{RegistryState, Session},
};

/// Names a session (MCP 2025-11-25, transports, "Session Management").
pub(crate) const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// An exchange that was begun in the session's lifecycle. Dropping it ends the exchange. Only then
/// is it known what the exchange has changed, so its end is recorded.
#[derive(Debug)]
pub(super) struct ActivityGuard {
    state: Arc<RegistryState>,
    session: Arc<Session>,
}

/// Removes the headers that are between the client and the registry. A backend has its own
/// credential, and must never see the client's (MCP, security best practices, "Token Passthrough").
pub(super) fn strip_client_headers(mut request: Request<Bytes>) -> Request<Bytes> {
    for name in [
        header::AUTHORIZATION,
        header::PROXY_AUTHORIZATION,
        header::COOKIE,
        MCP_SESSION_ID,
    ] {
        request.headers_mut().remove(name);
    }
    request
}

/// Removes a session id that a backend has set. Only the answer to `initialize` has one: some
/// clients adopt a later one that differs.
pub(super) fn strip_session_id(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().remove(MCP_SESSION_ID);
    response
}

/// Keeps `guard` until the body is dropped: servers drop a body when it has ended or the client is
/// gone.
pub(super) fn guard_body<G: Send + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
    response.map(|body| {
        body.map_frame(move |frame| {
            let _guard = &guard;
            frame
        })
        .boxed_unsync()
    })
}

/// A body that is complete.
pub(crate) fn full_body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

impl ActivityGuard {
    pub(super) fn new(state: &Arc<RegistryState>, session: &Arc<Session>) -> Self {
        state.changes.mark_changed(session);
        Self {
            state: Arc::clone(state),
            session: Arc::clone(session),
        }
    }
}

impl Drop for ActivityGuard {
    fn drop(&mut self) {
        self.session.lock().lifecycle.end_exchange(Instant::now());
        self.state.changes.mark_changed(&self.session);
    }
}
