//! How answers look: bodies, caching, and the errors of RFC 6749 section 5.2.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde::Serialize;

use super::Body;
use crate::{ports::StoreError, rate_limiter::Wait};

/// An error of the token, revocation or registration endpoint.
#[derive(Debug)]
pub(super) enum OAuthError {
    /// The request is malformed.
    InvalidRequest(&'static str),
    /// The client is unknown or did not prove who it is. `basic`: it tried to by HTTP Basic.
    InvalidClient { basic: bool },
    /// The code or refresh token is no good, for good.
    InvalidGrant(&'static str),
    /// There is no such grant type here.
    UnsupportedGrantType,
    /// `resource` is not the resource of this server (RFC 8707 section 2).
    InvalidTarget,
    /// A redirect URI cannot be registered (RFC 7591 section 3.2.2).
    InvalidRedirectUri(&'static str),
    /// The client's metadata cannot be registered (RFC 7591 section 3.2.2).
    InvalidClientMetadata(&'static str),
    /// Clients do not register themselves here.
    RegistrationClosed,
    /// Too many clients have registered.
    RegistrationFull,
    /// The registration access token is not that of a registered client (RFC 7592 section 2).
    InvalidRegistrationToken,
    /// The registration is not one that may be changed (RFC 7592 sections 2.2 and 2.3).
    RegistrationFixed,
    /// What the client publishes cannot be read now.
    Unreachable,
    /// It has been asked more often than it may be (RFC 6585 section 4).
    SlowDown(Wait),
    /// All together have asked more often than they may. Nothing that this one could have done better.
    Busy(Wait),
    /// The scope is malformed, or more than the grant has (RFC 6749 section 6).
    InvalidScope,
    /// The upstream cannot be asked now.
    Upstream(Arc<dyn std::error::Error + Send + Sync>),
    /// The store cannot be used.
    Store(StoreError),
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
}

impl OAuthError {
    /// The one place where these errors become HTTP.
    pub(super) fn into_response(self) -> Response<Body> {
        use StatusCode as S;
        let (status, error, description) = match self {
            Self::InvalidRequest(what) => (S::BAD_REQUEST, "invalid_request", what),
            Self::InvalidClient { .. } => (
                S::UNAUTHORIZED,
                "invalid_client",
                "the client is not known or not authenticated",
            ),
            Self::InvalidGrant(what) => (S::BAD_REQUEST, "invalid_grant", what),
            Self::UnsupportedGrantType => (
                S::BAD_REQUEST,
                "unsupported_grant_type",
                "use authorization_code or refresh_token",
            ),
            Self::InvalidTarget => (
                S::BAD_REQUEST,
                "invalid_target",
                "the resource is not the one of this server",
            ),
            Self::InvalidRedirectUri(what) => (S::BAD_REQUEST, "invalid_redirect_uri", what),
            Self::InvalidClientMetadata(what) => (S::BAD_REQUEST, "invalid_client_metadata", what),
            Self::RegistrationClosed => (S::FORBIDDEN, "access_denied", "clients cannot register themselves here"),
            Self::RegistrationFull => (
                S::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "too many clients have registered",
            ),
            Self::InvalidScope => (
                S::BAD_REQUEST,
                "invalid_scope",
                "the scope is malformed, or more than was granted",
            ),
            Self::Upstream(ref error) => {
                tracing::warn!(
                    error = error.as_ref() as &dyn std::error::Error,
                    "no tokens: Forgejo cannot be asked"
                );
                (
                    S::SERVICE_UNAVAILABLE,
                    "temporarily_unavailable",
                    "Forgejo cannot be asked now; try again in a moment",
                )
            }
            Self::InvalidRegistrationToken => (
                S::UNAUTHORIZED,
                "invalid_token",
                "the registration access token is not that of this client",
            ),
            Self::RegistrationFixed => (
                S::FORBIDDEN,
                "access_denied",
                "a public client is shared by all who registered it alike: register another one",
            ),
            Self::Unreachable => (
                S::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "what the client publishes cannot be read now",
            ),
            Self::SlowDown(_) => (
                S::TOO_MANY_REQUESTS,
                "temporarily_unavailable",
                "too many requests: wait before the next one",
            ),
            Self::Busy(_) => (
                S::SERVICE_UNAVAILABLE,
                "temporarily_unavailable",
                "too many requests of all: try again in a moment",
            ),
            Self::Store(ref error) => {
                log_store(error);
                (
                    S::SERVICE_UNAVAILABLE,
                    "temporarily_unavailable",
                    "try again in a moment",
                )
            }
        };
        let mut response = json(
            status,
            &ErrorBody {
                error,
                error_description: description,
            },
        );
        let headers = response.headers_mut();
        if let Self::InvalidClient { basic: true } = self {
            // RFC 6749 section 5.2: in the scheme that the client used.
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"oauth\""),
            );
        }
        if let Self::InvalidRegistrationToken = self {
            // RFC 6750 section 3: the token is a bearer, of this endpoint alone.
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            );
        }
        if status == S::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Self::SlowDown(wait) | Self::Busy(wait) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.seconds()));
        }
        response
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Tells the operator that the store has failed.
pub(super) fn log_store(error: &StoreError) {
    tracing::error!(error = error as &dyn std::error::Error, "the store has failed");
}

/// A JSON answer that is not to be kept (RFC 6749 section 5.1).
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let bytes = serde_json::to_vec(body).expect("wire structs have string keys and nothing that fails to serialise");
    let mut response = with_type(status, "application/json", bytes.into());
    response
        .headers_mut()
        .insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// A few words of text.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    with_type(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

/// An answer of a type, not to be kept.
pub(super) fn with_type(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a CORS preflight.
pub(super) fn preflight(methods: &'static str) -> Response<Body> {
    let mut response = with_type(StatusCode::NO_CONTENT, "text/plain; charset=utf-8", Bytes::new());
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, mcp-protocol-version"),
    );
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Sends the browser on. 303, so that a form is not posted again (RFC 9700 section 4.12).
pub(super) fn see_other(location: &str) -> Response<Body> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "There is no way on from here.\n");
    };
    let mut response = plain(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(header::LOCATION, location);
    response
}
