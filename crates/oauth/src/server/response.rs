//! The writers of responses: plain text, JSON, JSON errors, redirects. None of them may be cached.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::Body;

/// A response with a content type.
pub(super) fn content(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A response without a body.
pub(super) fn no_content() -> Response<Body> {
    let mut response = plain(StatusCode::NO_CONTENT, "");
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// Plain text.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    content(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

/// JSON (RFC 6749 section 5.1).
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(body).expect("wire types have string keys and values that always serialize");
    let response = content(status, "application/json", bytes.into());
    with_header(response, header::PRAGMA, HeaderValue::from_static("no-cache"))
}

/// A JSON error (RFC 6749 section 5.2).
pub(super) fn json_error(status: StatusCode, error: &str, error_description: &str) -> Response<Body> {
    let body = serde_json::json!({ "error": error, "error_description": error_description });
    json(status, &body)
}

/// A redirect of the browser, with 303 so that a form is not posted again (RFC 9700 section 4.12).
pub(super) fn see_other(location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            "The address to continue at is not valid.\n",
        );
    };
    with_header(plain(StatusCode::SEE_OTHER, ""), header::LOCATION, location)
}

/// The response to a CORS preflight.
pub(super) fn preflight(methods: &'static str) -> Response<Body> {
    let mut response = no_content();
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, mcp-protocol-version",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A response with another header.
pub(super) fn with_header(mut response: Response<Body>, name: HeaderName, value: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(name, value);
    response
}

/// A response that sets a cookie beside those that it sets already. `None` sets none.
pub(super) fn with_cookie(mut response: Response<Body>, cookie: Option<HeaderValue>) -> Response<Body> {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
