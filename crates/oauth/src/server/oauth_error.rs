//! The errors of the token, revocation and registration endpoints (RFC 6749 section 5.2).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode as S, header};

use super::{Body, params::ParamsError, response};
use crate::{ports::StoreError, rate_limiter::RetryAfter};

/// An error of the token, revocation or registration endpoint.
#[derive(Debug)]
pub(super) enum OAuthError {
    InvalidRequest(&'static str),
    /// The client is unknown or not authenticated. `basic`: it tried HTTP Basic.
    InvalidClient {
        basic: bool,
    },
    /// The code or refresh token is not valid, and a retry will not help.
    InvalidGrant(&'static str),
    UnsupportedGrantType,
    /// `resource` is not the resource of this server (RFC 8707 section 2).
    InvalidTarget,
    /// A redirect URI cannot be registered (RFC 7591 section 3.2.2).
    InvalidRedirectUri(&'static str),
    /// The metadata is not sent as JSON (RFC 7591 section 3.1). A page of another site can send
    /// other types without a preflight (Fetch standard, "CORS-safelisted request-header").
    NotJson,
    /// The client's metadata cannot be registered (RFC 7591 section 3.2.2).
    InvalidClientMetadata(&'static str),
    RegistrationClosed,
    RegistrationFull,
    /// The registration access token is not that of a registered client (RFC 7592 section 2).
    InvalidRegistrationToken,
    /// The registration cannot be changed (RFC 7592 sections 2.2 and 2.3).
    RegistrationFixed,
    /// The operator has blocked the client.
    ClientBlocked,
    /// The client identifier is a URL, and no client may be described by a document here.
    DocumentsNotAccepted,
    /// The document or the keys that the client publishes cannot be read now.
    ClientUnavailable,
    /// The client has sent too many requests (RFC 6585 section 4).
    TooManyRequests(RetryAfter),
    /// All clients together have sent too many requests.
    Overloaded(RetryAfter),
    /// The scope is malformed or exceeds the grant (RFC 6749 section 6).
    InvalidScope,
    Upstream(Arc<dyn std::error::Error + Send + Sync>),
    Store(StoreError),
}

impl OAuthError {
    /// Converts the errors to HTTP; no other place does.
    pub(super) fn into_response(self) -> Response<Body> {
        if let Self::Upstream(error) = &self {
            let error = error.as_ref() as &dyn std::error::Error;
            tracing::warn!(error, "no tokens issued: the Forgejo token is unavailable");
        }
        if let Self::Store(error) = &self {
            log_store_error(error);
        }
        let (status, error, description) = self.content();
        let mut response = response::json_error(status, error, description);
        let headers = response.headers_mut();
        // RFC 6749 section 5.2: in the scheme that the client used, which may be Basic for a
        // blocked one. RFC 6750 section 3: a registration token is a bearer token, of one endpoint
        // alone.
        if let Self::InvalidClient { basic: true } | Self::ClientBlocked = self {
            let challenge = HeaderValue::from_static("Basic realm=\"oauth\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Self::InvalidRegistrationToken = self {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == S::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Self::TooManyRequests(wait) | Self::Overloaded(wait) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.seconds()));
        }
        response
    }

    /// The status, the error code and its description.
    fn content(&self) -> (S, &'static str, &'static str) {
        let bad = |error, description: &'static str| (S::BAD_REQUEST, error, description);
        let forbidden = |description| (S::FORBIDDEN, "access_denied", description);
        let unavailable = |description| (S::SERVICE_UNAVAILABLE, "temporarily_unavailable", description);
        match self {
            Self::InvalidRequest(reason) => bad("invalid_request", reason),
            Self::InvalidGrant(reason) => bad("invalid_grant", reason),
            Self::InvalidRedirectUri(reason) => bad("invalid_redirect_uri", reason),
            Self::InvalidClientMetadata(reason) => bad("invalid_client_metadata", reason),
            Self::NotJson => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "invalid_client_metadata",
                "the metadata must be sent as application/json",
            ),
            Self::InvalidTarget => bad("invalid_target", "resource is not the resource of this server"),
            Self::InvalidScope => bad("invalid_scope", "the scope is malformed or exceeds the grant"),
            Self::UnsupportedGrantType => bad(
                "unsupported_grant_type",
                "grant_type must be authorization_code or refresh_token",
            ),
            Self::InvalidClient { .. } => {
                let description = "the client is unknown or not authenticated";
                (S::UNAUTHORIZED, "invalid_client", description)
            }
            Self::ClientBlocked => {
                let description = "the operator of this server has blocked the client";
                (S::UNAUTHORIZED, "invalid_client", description)
            }
            Self::DocumentsNotAccepted => {
                let description = "clients cannot be described by metadata documents here: register the client instead";
                (S::UNAUTHORIZED, "invalid_client", description)
            }
            Self::InvalidRegistrationToken => {
                let description = "the registration access token is not that of this client";
                (S::UNAUTHORIZED, "invalid_token", description)
            }
            Self::TooManyRequests(_) => {
                let description = "too many requests: wait before the next one";
                (S::TOO_MANY_REQUESTS, "temporarily_unavailable", description)
            }
            Self::RegistrationClosed => forbidden("clients cannot register themselves here"),
            Self::RegistrationFixed => forbidden("all who register this public client share it: register another one"),
            Self::RegistrationFull => unavailable("too many clients are registered"),
            Self::ClientUnavailable => unavailable("the document or the keys of the client cannot be read now"),
            Self::Overloaded(_) => unavailable("too many requests of all clients: try again in a moment"),
            Self::Upstream(_) => unavailable("Forgejo is not available now; try again in a moment"),
            Self::Store(_) => unavailable("try again in a moment"),
        }
    }
}

impl From<StoreError> for OAuthError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ParamsError> for OAuthError {
    fn from(error: ParamsError) -> Self {
        Self::InvalidRequest(error.0)
    }
}

pub(super) fn log_store_error(error: &StoreError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, "database operation failed: check store.path and disk space");
}
