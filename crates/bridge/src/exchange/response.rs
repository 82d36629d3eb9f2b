//! Builds HTTP responses: the only place that chooses status, headers and body.
//!
//! A rejection is a JSON-RPC error that carries the id of the request if it is known, because some
//! clients wait forever for an answer with their id.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Empty, Full};

use super::sse::SseBody;
use crate::{
    Body,
    error::RejectReason,
    jsonrpc::{self, INVALID_REQUEST, Id, MessageError, PARSE_ERROR, UNAVAILABLE},
    machine,
    modern::ModernError,
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The answer to a request that belongs to a session and names none.
pub(crate) fn missing_session_id(id: Option<&Id>) -> Response<Body> {
    let why = "Invalid request: Mcp-Session-Id is missing";
    let error = jsonrpc::error_with(id.map(Id::raw), INVALID_REQUEST, why, None);
    json(StatusCode::BAD_REQUEST, error)
}

/// The answer to a method other than POST where there is no session.
pub(crate) fn only_post() -> Response<Body> {
    let error = jsonrpc::error_with(
        None,
        INVALID_REQUEST,
        "without a session this endpoint accepts POST",
        None,
    );
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, error);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// The answer to a request of 2026-07-28 that is not accepted.
pub(crate) fn modern_rejected(error: &ModernError, id: Option<&Id>) -> Response<Body> {
    let mut response = json(error.status, error.response(id.map(Id::raw)));
    if error.status == StatusCode::TOO_MANY_REQUESTS || error.status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The answer to a notification or a response.
pub(crate) fn accepted() -> Response<Body> {
    empty(StatusCode::ACCEPTED)
}

/// The answer to the DELETE of a session.
pub(super) fn deleted() -> Response<Body> {
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::new(Empty::new().map_err(|never| match never {})));
    *response.status_mut() = status;
    response
}

pub(super) fn json(status: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text).map_err(|never| match never {})));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn sse(body: SseBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

pub(crate) fn rejected(reason: &RejectReason, id: Option<&Id>) -> Response<Body> {
    use RejectReason as Reason;
    let (status, code) = match reason {
        // A client takes 405 as the end of the stream, where it would repeat other requests
        // (MCP 2025-11-25, "Listening for Messages from the Server").
        Reason::MethodNotAllowed | Reason::StreamComplete => (StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST),
        Reason::InvalidMessage(MessageError::NotUtf8 | MessageError::NotJson) => (StatusCode::BAD_REQUEST, PARSE_ERROR),
        Reason::InvalidMessage(MessageError::Batch | MessageError::NotJsonRpc(_))
        | Reason::UnsupportedVersion(_)
        | Reason::InitializeInBatch
        | Reason::InitializeTooLarge => (StatusCode::BAD_REQUEST, INVALID_REQUEST),
        Reason::IdInFlight | Reason::Initializing => (StatusCode::CONFLICT, INVALID_REQUEST),
        Reason::TooManyRequests => (StatusCode::TOO_MANY_REQUESTS, UNAVAILABLE),
        Reason::ServerNotReading | Reason::ServerEnded => (StatusCode::SERVICE_UNAVAILABLE, UNAVAILABLE),
    };
    let data = if let Reason::UnsupportedVersion(requested) = reason {
        Some(machine::unsupported_version(requested))
    } else {
        None
    };
    let error = jsonrpc::error_with(id.map(Id::raw), code, &reason.to_string(), data.as_deref());
    let mut response = json(status, error);
    let headers = response.headers_mut();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
