//! The meaning of Forgejo's refusals.
//!
//! The token endpoint answers `unauthorized_client` for a code or refresh token that is invalid,
//! and also for a wrong client secret when a code is exchanged; `invalid_client` for an unknown
//! client and for a wrong secret at a refresh. So at a refresh `unauthorized_client` and
//! `invalid_grant` mean that the user has to sign in again, and `invalid_client` that the operator
//! has to mend the configuration, which ends no access.

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

/// The meaning of a refusal by the token endpoint.
pub(super) fn of_token_request(
    request: TokenRequest,
    error: RequestTokenError<TransportError, BasicErrorResponse>,
) -> UpstreamError {
    let response = match error {
        RequestTokenError::ServerResponse(response) => response,
        RequestTokenError::Request(error) => return UpstreamError::Unavailable(Box::new(error)),
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
        (BasicErrorResponseType::InvalidGrant | BasicErrorResponseType::UnauthorizedClient, _) => {
            UpstreamError::Refused(text)
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
    let text = format!("{}: {}", status.as_u16(), redact(&message(response)));
    match status {
        StatusCode::UNAUTHORIZED => UpstreamError::Refused(text),
        StatusCode::FORBIDDEN => UpstreamError::Misconfigured(text),
        _ => UpstreamError::Unexpected(text),
    }
}

/// Reports whether the API says that the user is locked out: disabled, prohibited from signing in,
/// or not activated. A 403 for a missing scope is no such answer.
pub(super) fn is_lockout(response: &http::Response<Vec<u8>>) -> bool {
    response.status() == StatusCode::FORBIDDEN
        && ["prohibited from signing in", "account is not activated"]
            .iter()
            .any(|text| message(response).contains(text))
}

/// The error message of the API.
fn message(response: &http::Response<Vec<u8>>) -> String {
    #[derive(serde::Deserialize)]
    struct ErrorBody {
        message: String,
    }
    serde_json::from_slice(response.body())
        .map(|body: ErrorBody| body.message)
        .unwrap_or_default()
}
