//! The errors of the token, revocation and registration endpoints (RFC 6749 section 5.2).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::{Body, params::ParamsError, response};
use crate::{ports::StoreError, rate_limiter::RetryAfter};

/// An error of the token, revocation or registration endpoint.
#[derive(Debug)]
pub(super) enum OAuthError {
    /// The request is malformed.
    InvalidRequest(&'static str),
    /// The client is unknown or not authenticated. `basic`: it tried HTTP Basic.
    InvalidClient { basic: bool },
    /// The code or refresh token is not valid, and a retry will not help.
    InvalidGrant(&'static str),
    /// The grant type is not supported.
    UnsupportedGrantType,
    /// `resource` is not the resource of this server (RFC 8707 section 2).
    InvalidTarget,
    /// A redirect URI cannot be registered (RFC 7591 section 3.2.2).
    InvalidRedirectUri(&'static str),
    /// The client's metadata cannot be registered (RFC 7591 section 3.2.2).
    InvalidClientMetadata(&'static str),
    /// Clients cannot register themselves.
    RegistrationClosed,
    /// Too many clients are registered.
    RegistrationFull,
    /// The registration access token is not that of a registered client (RFC 7592 section 2).
    InvalidRegistrationToken,
    /// The registration cannot be changed (RFC 7592 sections 2.2 and 2.3).
    RegistrationFixed,
    /// The document or the keys that the client publishes cannot be read now.
    ClientUnavailable,
    /// The client has sent too many requests (RFC 6585 section 4).
    TooManyRequests(RetryAfter),
    /// All clients together have sent too many requests.
    Overloaded(RetryAfter),
    /// The scope is malformed or exceeds the grant (RFC 6749 section 6).
    InvalidScope,
    /// The upstream is not available now.
    Upstream(Arc<dyn std::error::Error + Send + Sync>),
    /// The store failed.
    Store(StoreError),
}

impl OAuthError {
    /// Converts the errors to HTTP; no other place does.
    pub(super) fn into_response(self) -> Response<Body> {
        if let Self::Upstream(error) = &self {
            let error = error.as_ref() as &dyn std::error::Error;
            tracing::warn!(error, "no tokens issued: Forgejo is not available");
        }
        if let Self::Store(error) = &self {
            log_store_error(error);
        }
        let (status, error) = self.code();
        let mut response = response::json_error(status, error, self.description());
        let headers = response.headers_mut();
        // RFC 6749 section 5.2: in the scheme that the client used. RFC 6750 section 3: a
        // registration token is a bearer token, of one endpoint alone.
        if let Self::InvalidClient { basic: true } = self {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"oauth\""),
            );
        }
        if let Self::InvalidRegistrationToken = self {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if let Self::TooManyRequests(wait) | Self::Overloaded(wait) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.seconds()));
        }
        response
    }

    fn code(&self) -> (StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest(_) => (S::BAD_REQUEST, "invalid_request"),
            Self::InvalidClient { .. } => (S::UNAUTHORIZED, "invalid_client"),
            Self::InvalidGrant(_) => (S::BAD_REQUEST, "invalid_grant"),
            Self::UnsupportedGrantType => (S::BAD_REQUEST, "unsupported_grant_type"),
            Self::InvalidTarget => (S::BAD_REQUEST, "invalid_target"),
            Self::InvalidRedirectUri(_) => (S::BAD_REQUEST, "invalid_redirect_uri"),
            Self::InvalidClientMetadata(_) => (S::BAD_REQUEST, "invalid_client_metadata"),
            Self::InvalidScope => (S::BAD_REQUEST, "invalid_scope"),
            Self::InvalidRegistrationToken => (S::UNAUTHORIZED, "invalid_token"),
            Self::RegistrationClosed | Self::RegistrationFixed => (S::FORBIDDEN, "access_denied"),
            Self::TooManyRequests(_) => (S::TOO_MANY_REQUESTS, "temporarily_unavailable"),
            Self::RegistrationFull
            | Self::ClientUnavailable
            | Self::Overloaded(_)
            | Self::Upstream(_)
            | Self::Store(_) => (S::SERVICE_UNAVAILABLE, "temporarily_unavailable"),
        }
    }

    fn description(&self) -> &'static str {
        match self {
            Self::InvalidRequest(reason)
            | Self::InvalidGrant(reason)
            | Self::InvalidRedirectUri(reason)
            | Self::InvalidClientMetadata(reason) => reason,
            Self::InvalidClient { .. } => "the client is unknown or not authenticated",
            Self::UnsupportedGrantType => "grant_type must be authorization_code or refresh_token",
            Self::InvalidTarget => "resource is not the resource of this server",
            Self::RegistrationClosed => "clients cannot register themselves here",
            Self::RegistrationFull => "too many clients are registered",
            Self::InvalidScope => "the scope is malformed or exceeds the grant",
            Self::Upstream(_) => "Forgejo is not available now; try again in a moment",
            Self::InvalidRegistrationToken => "the registration access token is not that of this client",
            Self::RegistrationFixed => "all who register this public client share it: register another one",
            Self::ClientUnavailable => "the document or the keys of the client cannot be read now",
            Self::TooManyRequests(_) => "too many requests: wait before the next one",
            Self::Overloaded(_) => "too many requests of all clients: try again in a moment",
            Self::Store(_) => "try again in a moment",
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
        Self::InvalidRequest(error.describe())
    }
}

/// Logs a failure of the store for the operator.
pub(super) fn log_store_error(error: &StoreError) {
    tracing::error!(error = error as &dyn std::error::Error, "the store failed");
}
