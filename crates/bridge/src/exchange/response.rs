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
    legacy,
};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The answer to a notification or a response.
pub(super) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::new(Empty::new().map_err(|never| match never {})));
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

/// A JSON body.
pub(super) fn json(status: StatusCode, text: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text).map_err(|never| match never {})));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The responses to a batch as one JSON array.
pub(super) fn array(lines: &[Bytes]) -> Bytes {
    [&b"["[..], &lines.join(&b","[..]), b"]"].concat().into()
}

/// A stream of server-sent events.
pub(super) fn sse(body: SseBody) -> Response<Body> {
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// The answer to a rejected message with this id.
pub(super) fn rejected(reason: &RejectReason, id: Option<&Id>) -> Response<Body> {
    use StatusCode as Status;
    let (status, code, text) = match reason {
        RejectReason::MethodNotAllowed => (
            Status::METHOD_NOT_ALLOWED,
            INVALID_REQUEST,
            "this endpoint accepts GET and POST",
        ),
        RejectReason::InvalidMessage(error) => {
            let (code, text) = match error {
                MessageError::NotUtf8 => (PARSE_ERROR, "the body is not UTF-8"),
                MessageError::NotJson => (PARSE_ERROR, "the body is not JSON"),
                MessageError::Batch => (
                    INVALID_REQUEST,
                    "batches are not supported in this protocol version: send one message at a time",
                ),
                MessageError::NotJsonRpc(_) => (INVALID_REQUEST, "the body is not a JSON-RPC 2.0 message"),
            };
            (Status::BAD_REQUEST, code, text)
        }
        RejectReason::UnsupportedVersion(_) => (Status::BAD_REQUEST, INVALID_REQUEST, "unsupported protocol version"),
        RejectReason::IdInFlight => (Status::CONFLICT, INVALID_REQUEST, "a request with this id is in flight"),
        RejectReason::InitializeInBatch => (
            Status::BAD_REQUEST,
            INVALID_REQUEST,
            "initialize cannot be part of a batch",
        ),
        RejectReason::InitializeTooLarge => (
            Status::BAD_REQUEST,
            INVALID_REQUEST,
            "the parameters of initialize are larger than 64 KiB",
        ),
        RejectReason::Initializing => (Status::CONFLICT, INVALID_REQUEST, "the session is being initialized"),
        RejectReason::TooManyRequests => (
            Status::TOO_MANY_REQUESTS,
            UNAVAILABLE,
            "too many requests of this session are in flight",
        ),
        RejectReason::ServerNotReading => (Status::SERVICE_UNAVAILABLE, UNAVAILABLE, legacy::SERVER_NOT_READING),
        RejectReason::ServerEnded => (Status::SERVICE_UNAVAILABLE, UNAVAILABLE, legacy::SERVER_ENDED),
    };
    let data = if let RejectReason::UnsupportedVersion(requested) = reason {
        Some(legacy::unsupported_version(requested))
    } else {
        None
    };
    let error = jsonrpc::error_with(id.map(Id::raw), code, text, data.as_deref());
    let mut response = json(status, error);
    let headers = response.headers_mut();
    if status == Status::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
    }
    if status == Status::TOO_MANY_REQUESTS || status == Status::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}
