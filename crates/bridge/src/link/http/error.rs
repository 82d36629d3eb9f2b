//! Errors between a link and its server, and their texts for clients.

use std::error::Error;

use http::StatusCode;

use super::token::TokenError;
use crate::error::ConnectError;

/// The reason why a message has no response of the server. The text is for the operator's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("there is no usable token for the user")]
    Token(#[from] TokenError),
    #[error("the server answered with status {0}")]
    Refused(StatusCode),
    #[error("the response broke off")]
    BrokenOff,
    #[error("the response is longer than the limit")]
    TooLong,
    #[error("the response is not MCP")]
    NotMcp,
    /// The server has forgotten the session and did not answer the handshake: a later attempt may
    /// succeed.
    #[error("the server has forgotten the session, and it could not be opened again")]
    NotReopened(#[source] Option<Box<Self>>),
    /// The server has forgotten the session, and a new one cannot replace it: the next request
    /// needs another link.
    #[error("the server has forgotten the session, and a new one cannot replace it")]
    SessionLost(#[source] Option<ConnectError>),
}

impl HttpError {
    /// The text for the client. It reveals neither the address of the server nor its response.
    pub(super) fn for_client(&self) -> String {
        match self {
            Self::Unreachable(_) => "the MCP server cannot be reached".to_owned(),
            Self::Token(error) => error.to_string(),
            Self::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "the MCP server does not accept the user's access".to_owned()
            }
            Self::Refused(_) => "the MCP server refused the request".to_owned(),
            Self::BrokenOff => "the MCP server broke off its response".to_owned(),
            Self::TooLong => "the response of the MCP server is too long".to_owned(),
            Self::NotMcp => "the MCP server sent an invalid response".to_owned(),
            Self::NotReopened(_) | Self::SessionLost(_) => "the MCP server has forgotten the session".to_owned(),
        }
    }

    /// True if the session cannot continue.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::SessionLost(_))
    }

    pub(super) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}
