//! Building responses.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Body as _;

use crate::ports::ResponseBody;

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<ResponseBody> {
    whole(status, "application/json", value.to_string())
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<ResponseBody> {
    whole(status, "text/plain; charset=utf-8", text)
}

pub(crate) fn html(status: StatusCode, page: impl Into<Bytes>) -> Response<ResponseBody> {
    whole(status, "text/html; charset=utf-8", page)
}

pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = whole(status, "text/plain", Bytes::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// The response to HEAD: that to GET without the body (RFC 9110 section 9.3.2).
pub(crate) fn without_body(response: Response<ResponseBody>) -> Response<ResponseBody> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
    Response::from_parts(parts, empty)
}

/// A response with a complete body of the given media type. It is never cached.
pub(crate) fn whole(status: StatusCode, media_type: &'static str, bytes: impl Into<Bytes>) -> Response<ResponseBody> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
