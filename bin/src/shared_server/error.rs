//! Errors between a session and the shared server, and their texts for clients.

use http::StatusCode;
use session::ports::CredentialError;

/// The reason why a message has no response of the server. The text is for the operator's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum SharedServerError {
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    #[error("there is no usable token for the user")]
    Credential(#[from] CredentialError),
    #[error("the user's token is not a valid header value")]
    InvalidToken,
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
    NotReopened(#[source] bridge::ConnectError),
    /// The server has forgotten the session, and a new one cannot replace it: the next request
    /// needs a fresh backend.
    #[error("the server has forgotten the session, and a new one cannot replace it")]
    SessionLost(#[source] Option<bridge::ConnectError>),
    #[error("the request was cancelled")]
    Cancelled,
}

impl SharedServerError {
    /// The text for the client. It reveals neither the address of the server nor its response.
    pub(super) fn for_client(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "the MCP server cannot be reached",
            Self::Credential(CredentialError::Terminal(_)) => "the user has to sign in again",
            Self::Credential(CredentialError::Transient(_)) => "the user's access cannot be renewed now",
            Self::InvalidToken => "the user's access cannot be used",
            Self::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "the MCP server does not accept the user's access"
            }
            Self::Refused(_) => "the MCP server refused the request",
            Self::BrokenOff => "the MCP server broke off its response",
            Self::TooLong => "the response of the MCP server is too long",
            Self::NotMcp => "the MCP server sent an invalid response",
            Self::NotReopened(_) | Self::SessionLost(_) => "the MCP server has forgotten the session",
            Self::Cancelled => "the request was cancelled",
        }
    }

    /// True if the session cannot continue.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::SessionLost(_))
    }

    pub(super) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
