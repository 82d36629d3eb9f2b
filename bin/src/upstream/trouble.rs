//! What may go wrong between a session and the shared server, and what its client is told of it.

use http::StatusCode;
use session::ports::CredentialError;

/// Why a message did not get its answer from the server. The text is for the operator's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// There was no HTTP answer.
    #[error("the server cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The user's token cannot be had.
    #[error("there is no usable token for the user")]
    Credential(#[from] CredentialError),
    /// The token cannot stand in a header.
    #[error("the user's token cannot be sent")]
    UnsendableToken,
    /// The server did not take the message.
    #[error("the server answered with status {0}")]
    Refused(StatusCode),
    /// The answer ended before it was complete.
    #[error("the answer broke off")]
    BrokenOff,
    /// The answer, or an event of it, is longer than the limit.
    #[error("the answer is longer than the limit")]
    TooLong,
    /// The answer is something else than MCP has at this place.
    #[error("the answer is not MCP")]
    NotMcp,
    /// The server has forgotten the session and did not take the handshake: a later try may succeed.
    #[error("the server has forgotten the session, and it could not be opened anew")]
    NotReopened(#[source] bridge::ConnectError),
    /// The server has forgotten the session and cannot be told it anew: whoever comes after has to begin with a fresh link.
    #[error("the server has forgotten the session, and a new one cannot stand in for it")]
    Lost(#[source] Option<bridge::ConnectError>),
    /// The request was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
}

impl Trouble {
    /// What the client is told: nothing of where the server is or what it said.
    pub(super) fn for_client(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "the MCP server cannot be reached",
            Self::Credential(CredentialError::Terminal(_)) => "the user has to sign in again",
            Self::Credential(CredentialError::Transient(_)) => "the user's access cannot be renewed now",
            Self::UnsendableToken => "the user's access cannot be used",
            Self::Refused(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                "the MCP server does not accept the user's access"
            }
            Self::Refused(_) => "the MCP server has refused the request",
            Self::BrokenOff => "the MCP server has broken off its answer",
            Self::TooLong => "the answer of the MCP server is too long",
            Self::NotMcp => "the MCP server has answered with something that is no answer",
            Self::NotReopened(_) | Self::Lost(_) => "the MCP server has forgotten the session",
            Self::Cancelled => "the request was cancelled",
        }
    }

    /// Whether the link is of no use any more.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// The text with its causes.
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
