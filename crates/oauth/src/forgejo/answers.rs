//! What Forgejo's refusals mean.
//!
//! The token endpoint says `unauthorized_client` for a code or refresh token that is dead, and also for a wrong
//! client secret when a code is exchanged; `invalid_client` for an unknown client and for a wrong secret at a
//! refresh. So at a refresh `unauthorized_client` and `invalid_grant` mean that the user has to sign in again, and
//! `invalid_client` that the operator has to mend the configuration, which is no reason to end anyone's access.

use std::error::Error as _;

use http::StatusCode;
use oauth2::{
    RequestTokenError,
    basic::{BasicErrorResponse, BasicErrorResponseType},
};

use super::http_client::HttpError;
use crate::ports::UpstreamError;

/// Which question was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked {
    /// A code for tokens.
    Exchange,
    /// A refresh token for new ones.
    Refresh,
}

/// The meaning of a refusal by the token endpoint.
pub(super) fn refusal(asked: Asked, error: RequestTokenError<HttpError, BasicErrorResponse>) -> UpstreamError {
    match error {
        RequestTokenError::ServerResponse(answer) => {
            let text = describe(answer.error(), answer.error_description().map_or("", String::as_str));
            match answer.error() {
                BasicErrorResponseType::InvalidGrant => UpstreamError::Refused(text),
                BasicErrorResponseType::UnauthorizedClient => match asked {
                    Asked::Refresh => UpstreamError::Refused(text),
                    // The only way to tell the operator's fault from a dead code.
                    Asked::Exchange if is_configuration(answer.error_description()) => {
                        UpstreamError::Misconfigured(text)
                    }
                    Asked::Exchange => UpstreamError::Refused(text),
                },
                BasicErrorResponseType::InvalidClient
                | BasicErrorResponseType::InvalidRequest
                | BasicErrorResponseType::InvalidScope
                | BasicErrorResponseType::UnsupportedGrantType => UpstreamError::Misconfigured(text),
                BasicErrorResponseType::Extension(_) => UpstreamError::Unexpected(text),
            }
        }
        RequestTokenError::Request(error) => UpstreamError::Unavailable(Box::new(error)),
        // The body is not shown: it may be anything.
        RequestTokenError::Parse(..) => {
            UpstreamError::Unexpected("the token endpoint did not answer in JSON".to_owned())
        }
        RequestTokenError::Other(text) => UpstreamError::Unexpected(redact(&text)),
    }
}

/// Whether the API says that the user is locked out: disabled, prohibited from signing in, or not activated. A 403 for
/// want of a scope is another matter.
pub(super) fn is_locked_out(response: &http::Response<Vec<u8>>) -> bool {
    response.status() == StatusCode::FORBIDDEN
        && ["prohibited from signing in", "account is not activated"]
            .iter()
            .any(|text| message(response).contains(text))
}

/// The meaning of an answer of the API that is not the one hoped for.
pub(super) fn api_refusal(response: &http::Response<Vec<u8>>) -> UpstreamError {
    let status = response.status();
    let text = format!("{}: {}", status.as_u16(), redact(&message(response)));
    match status {
        StatusCode::UNAUTHORIZED => UpstreamError::Refused(text),
        StatusCode::FORBIDDEN => UpstreamError::Misconfigured(text),
        _ => UpstreamError::Unexpected(text),
    }
}

/// What the API says in words.
fn message(response: &http::Response<Vec<u8>>) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
    }
    serde_json::from_slice::<Refusal>(response.body())
        .map(|refusal| refusal.message)
        .unwrap_or_default()
}

/// Takes out of a text whatever may be a token, and what does not belong into a log line.
fn redact(text: &str) -> String {
    const LONGEST_WORD: usize = 20;
    let words: Vec<String> = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(200)
        .collect::<String>()
        .split(' ')
        .map(|word| {
            let secret = word
                .split(|c: char| !(c.is_ascii_alphanumeric() || "-_.+/=~".contains(c)))
                .any(|run| run.chars().count() > LONGEST_WORD || run.starts_with("gto_") || run.starts_with("gta_"));
            if secret {
                "[redacted]".to_owned()
            } else {
                word.to_owned()
            }
        })
        .collect();
    words.join(" ")
}

fn describe(error: &BasicErrorResponseType, description: &str) -> String {
    redact(&format!("{}: {description}", error.as_ref()))
}

fn is_configuration(description: Option<&String>) -> bool {
    description.is_some_and(|text| text == "invalid client secret" || text == "unexpected redirect URI")
}

/// The innermost cause, which is the one that says what happened.
pub(super) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    let mut text = String::new();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    redact(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_taken_out_of_texts() {
        let jwt = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJnbnQiOjF9.c2ln";
        let text = redact(&format!("token \"{jwt}\" is bad:{jwt} gto_short\nnext"));
        assert_eq!(text, "token [redacted] is [redacted] [redacted] next");
        let ours = "token does not have at least one of required scope(s): [read:organization]";
        assert_eq!(redact(ours), ours);
    }

    #[test]
    fn texts_are_cut() {
        assert!(redact(&"word ".repeat(1000)).len() <= 200);
    }
}
