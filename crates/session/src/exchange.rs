//! The edge of an exchange: headers and bodies.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};

use crate::ports::Body;

/// Names a session (MCP 2025-11-25, transports, "Session Management").
pub(crate) const MCP_SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Removes the headers that are between the client and the registry. A backend has its own
/// credential, and must never see the client's (MCP, security best practices, "Token Passthrough").
pub(crate) fn strip_client_headers(mut request: Request<Bytes>) -> Request<Bytes> {
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
pub(crate) fn strip_session_id(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().remove(MCP_SESSION_ID);
    response
}

/// Keeps `guard` until the body is dropped: servers drop a body when it has ended or the client is
/// gone.
pub(crate) fn guard_body<G: Send + 'static>(response: Response<Body>, guard: G) -> Response<Body> {
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

/// A JSON-RPC error. `error` is its object, and `id` the id of the request that waits for it, if
/// one does, as JSON.
pub(crate) fn json_rpc_error(status: StatusCode, error: &serde_json::Value, id: Option<&str>) -> Response<Body> {
    let id = id.map(|id| format!(r#","id":{id}"#)).unwrap_or_default();
    let mut response = Response::new(full_body(format!(r#"{{"jsonrpc":"2.0"{id},"error":{error}}}"#)));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
