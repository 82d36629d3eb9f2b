//! The meaning of Forgejo's refusals.
//!
//! The token endpoint answers `unauthorized_client` for a code or refresh token that is invalid,
//! and also for a wrong client secret when a code is exchanged; `invalid_client` for an unknown
//! client and for a wrong secret at a refresh. So at a refresh `unauthorized_client` and
//! `invalid_grant` may mean that the user has to sign in again, which only a known description
//! tells, and `invalid_client` that the operator has to mend the configuration, which ends no
//! access.
//!
//! **A refusal that ends access has to be Forgejo's own.** A proxy in front of it can answer with
//! any status, so a response of the API counts only with the members that Forgejo writes.

use http::StatusCode;
use oauth2::{
    RequestTokenError,
    basic::{BasicErrorResponse, BasicErrorResponseType},
};

use super::{http_client::TransportError, redact::redact};
use crate::ports::UpstreamError;

/// A request to the token endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum TokenRequest {
    /// A code for tokens.
    Exchange,
    /// A refresh token for new tokens.
    Refresh,
}

/// The body of an error response of the API, as far as it is read. Forgejo writes the URL of its
/// documentation into most of them, but not where it locks a user out.
#[derive(serde::Deserialize)]
struct ErrorBody {
    message: String,
    url: Option<String>,
}

/// Descriptions with which Forgejo and Gitea refuse a refresh token for good.
const DEAD_REFRESH_TOKEN: [&str; 5] = [
    "unable to parse refresh token",
    "token is not a refresh token",
    "token was already used",
    "grant does not exist",
    "not issued to this client",
];
/// Another refresh of the same user came first; the next one tells more.
const CONCURRENT_REFRESH: &str = "cannot increase the grant counter";

/// The meaning of a refusal by the token endpoint.
pub(super) fn of_token_request(
    request: TokenRequest,
    error: RequestTokenError<TransportError, BasicErrorResponse>,
) -> UpstreamError {
    let response = match error {
        RequestTokenError::ServerResponse(response) => response,
        RequestTokenError::Request(error) => return error.into(),
        // The body may hold anything, and is not shown.
        RequestTokenError::Parse(..) => {
            return UpstreamError::Unexpected("the token endpoint did not answer in JSON".to_owned());
        }
        RequestTokenError::Other(text) => return UpstreamError::Unexpected(redact(&text)),
    };
    let description = response.error_description().map_or("", String::as_str);
    let text = redact(&format!("{}: {description}", response.error().as_ref()));
    match (response.error(), request) {
        // Only the description tells a wrong configuration from an invalid code.
        (BasicErrorResponseType::UnauthorizedClient, TokenRequest::Exchange)
            if matches!(description, "invalid client secret" | "unexpected redirect URI") =>
        {
            UpstreamError::Misconfigured(text)
        }
        (BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::UnauthorizedClient, TokenRequest::Exchange) => {
            UpstreamError::Refused(text)
        }
        (BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::UnauthorizedClient, TokenRequest::Refresh) => {
            if DEAD_REFRESH_TOKEN.iter().any(|dead| description.contains(dead)) {
                UpstreamError::Refused(text)
            } else if description.contains(CONCURRENT_REFRESH) {
                UpstreamError::Unexpected(text)
            } else {
                UpstreamError::Unconfirmed(text)
            }
        }
        (
            BasicErrorResponseType::InvalidClient
            | BasicErrorResponseType::InvalidRequest
            | BasicErrorResponseType::InvalidScope
            | BasicErrorResponseType::UnsupportedGrantType,
            _,
        ) => UpstreamError::Misconfigured(text),
        (BasicErrorResponseType::Extension(_), _) => UpstreamError::Unexpected(text),
    }
}

/// The meaning of a response of the API that is not a success.
pub(super) fn of_api(response: &http::Response<Vec<u8>>) -> UpstreamError {
    let status = response.status();
    let body = error_body(response);
    let message = body.as_ref().map(|body| redact(&body.message));
    let text = format!("{}: {}", status.as_u16(), message.unwrap_or_default());
    match status {
        StatusCode::UNAUTHORIZED if body.as_ref().is_some_and(|body| body.url.is_some()) => {
            UpstreamError::Refused(text)
        }
        StatusCode::FORBIDDEN if body.as_ref().is_some_and(is_lockout) => UpstreamError::LockedOut(text),
        // Without a body of Forgejo the answer is a proxy's.
        StatusCode::FORBIDDEN if body.is_none() => UpstreamError::Unexpected(text),
        StatusCode::FORBIDDEN => UpstreamError::Misconfigured(text),
        _ => UpstreamError::Unexpected(text),
    }
}

/// Reports whether the API says that the user is locked out: disabled, prohibited from signing in,
/// or not activated. A 403 for a missing scope is no such answer.
fn is_lockout(body: &ErrorBody) -> bool {
    let texts = ["prohibited from signing in", "account is not activated"];
    texts.iter().any(|text| body.message.contains(text))
}

/// The body of an error response that Forgejo itself has written.
fn error_body(response: &http::Response<Vec<u8>>) -> Option<ErrorBody> {
    serde_json::from_slice(response.body()).ok()
}
