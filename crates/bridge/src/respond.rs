//! What HTTP says: the one place where answers and refusals get their status, headers and body.
//!
//! A refusal is a JSON-RPC error that carries the id of the request as far as it is known, since some clients
//! wait for ever on an answer without it.

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::{BodyExt, Empty, Full};

use crate::{
    Body,
    envelope::Malformed,
    id::Id,
    json, legacy,
    refusal::Refusal,
    rpc::{self, INVALID_REQUEST, PARSE_ERROR, UNAVAILABLE},
    sse::EventStream,
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A notification or a response has been taken.
pub(crate) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::new(Empty::new().map_err(|never| match never {})));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// One JSON-RPC message.
pub(crate) fn message(status: StatusCode, line: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(line).map_err(|never| match never {})));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The answers to a batch as one JSON text.
pub(crate) fn array(lines: &[Bytes]) -> Bytes {
    [&b"["[..], &lines.join(&b","[..]), b"]"].concat().into()
}

/// A stream of events.
pub(crate) fn events(stream: EventStream) -> Response<Body> {
    let mut response = Response::new(Body::new(stream));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// A refusal, with the id of what is refused.
pub(crate) fn refused(refusal: &Refusal, id: Option<&Id>) -> Response<Body> {
    let (status, code, text) = match refusal {
        Refusal::Method => (
            StatusCode::METHOD_NOT_ALLOWED,
            INVALID_REQUEST,
            "this endpoint takes POST and GET",
        ),
        Refusal::Malformed(Malformed::NotUtf8) => (StatusCode::BAD_REQUEST, PARSE_ERROR, "the body is not UTF-8"),
        Refusal::Malformed(Malformed::NotJson) => (StatusCode::BAD_REQUEST, PARSE_ERROR, "the body is not JSON"),
        Refusal::Malformed(Malformed::Batch) => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "batches are not supported in this protocol version: send one message at a time",
        ),
        Refusal::Malformed(Malformed::NotJsonRpc(_)) => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "the body is not a JSON-RPC 2.0 message",
        ),
        Refusal::Version(_) => (StatusCode::BAD_REQUEST, INVALID_REQUEST, "unsupported protocol version"),
        Refusal::IdInFlight => (
            StatusCode::CONFLICT,
            INVALID_REQUEST,
            "a request with this id is in flight",
        ),
        Refusal::InitializeInBatch => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "initialize cannot be part of a batch",
        ),
        Refusal::HandshakeTooLarge => (
            StatusCode::BAD_REQUEST,
            INVALID_REQUEST,
            "the parameters of initialize are larger than 64 KiB",
        ),
        Refusal::Initializing => (
            StatusCode::CONFLICT,
            INVALID_REQUEST,
            "the session is being initialized",
        ),
        Refusal::Busy => (
            StatusCode::TOO_MANY_REQUESTS,
            UNAVAILABLE,
            "too many requests of this session are in flight",
        ),
        Refusal::Stalled => (
            StatusCode::SERVICE_UNAVAILABLE,
            UNAVAILABLE,
            "the MCP server of this session does not read its input",
        ),
        Refusal::Ended => (
            StatusCode::SERVICE_UNAVAILABLE,
            UNAVAILABLE,
            "the MCP server of this session has ended",
        ),
    };
    let data = if let Refusal::Version(requested) = refusal {
        Some(format!(
            r#"{{"supported":{},"requested":{}}}"#,
            legacy::supported(),
            json::quote(requested)
        ))
    } else {
        None
    };
    let line = rpc::error_with(id.map(Id::raw), code, text, data.as_deref());
    let mut response = message(status, line);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
