//! The checks of `/mcp`.
//!
//! Their order matters: host and origin before anything is looked up, the bearer before any detail
//! of the request is rejected, and the body last, once its sender is authenticated.

use http::{HeaderMap, Method, Request, header};
use hyper::body::Incoming;

use crate::{
    app_state::AppState,
    cors,
    http_error::HttpError,
    media_type::{EVENT_STREAM, JSON},
    ports::McpAnswer,
    request_body,
};

/// Serves a request whose host has been checked.
///
/// # Errors
///
/// The check that the request failed. The authority's own response is not an error here.
pub(crate) async fn serve(state: &AppState, request: Request<Incoming>) -> Result<McpAnswer, HttpError> {
    let (mut parts, incoming) = request.into_parts();
    state.host_origin.check_origin(&parts.headers)?;
    // Before the authentication, since browsers send no bearer with a preflight.
    if let Some(response) = cors::preflight(&parts) {
        return Ok(response.into());
    }
    if let Err(challenge) = state.authority.authenticate(&mut parts).await {
        return Ok(challenge.into());
    }
    let limits = &state.config.limits;
    let body = match parts.method {
        Method::POST => {
            check_post(&parts.headers)?;
            request_body::read(incoming, limits.mcp_body, limits.body_timeout).await?
        }
        Method::GET if EVENT_STREAM.is_acceptable(&parts.headers) => bytes::Bytes::new(),
        Method::GET => return Err(HttpError::GetNotAcceptable),
        // The body of a DELETE has no meaning (RFC 9110 section 9.3.5).
        Method::DELETE => bytes::Bytes::new(),
        _ => return Err(HttpError::MethodNotAllowed(cors::ALLOWED_METHODS)),
    };
    Ok(state.mcp.serve(Request::from_parts(parts, body)).await)
}

/// MCP 2025-11-25, transports, "Sending Messages to the Server": the response may have either type,
/// so the client must accept both.
fn check_post(headers: &HeaderMap) -> Result<(), HttpError> {
    if !(JSON.is_acceptable(headers) && EVENT_STREAM.is_acceptable(headers)) {
        return Err(HttpError::PostNotAcceptable);
    }
    let encoding = headers.get(header::CONTENT_ENCODING);
    let encoded = encoding.is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded || !JSON.is_content_of(headers) {
        return Err(HttpError::UnsupportedMediaType);
    }
    Ok(())
}
