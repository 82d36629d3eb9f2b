//! Pages for the user. They work without scripts, load nothing, and cannot be framed.
//!
//! The templates escape texts from outside (a client's name, its redirect URI, a login). The policy
//! has no `form-action`: browsers apply it to the redirects that follow a form, which lead to
//! Forgejo and on to any client.

mod error;
mod message;

use std::sync::LazyLock;

use askama::Template;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};

use super::{Body, response};

pub(super) use error::ErrorPage;
pub(super) use message::{access_denied, invalid_request, scope_mismatch};

/// The style of all pages.
pub(super) const STYLE: &str = include_str!("../../templates/style.css");

/// The name that a page shows for a client without one.
pub(super) const UNNAMED_CLIENT: &str = "An application without a name";

/// The policy of all pages. It allows the style by its hash.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    let policy = format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).expect("base64 and keywords are printable ASCII")
});

/// The response with a page.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response<Body> {
    let Ok(text) = page.render() else {
        return response::plain(StatusCode::INTERNAL_SERVER_ERROR, "The page could not be rendered.\n");
    };
    let mut response = response::content(status, "text/html; charset=utf-8", text.into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // `no-referrer` would make browsers send `Origin: null` with the form.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}
