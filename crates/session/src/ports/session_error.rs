//! The reason that a session does not serve a request.

use std::time::Duration;

/// The reason that a session has no server for a request, as its client may read it. Reasons for
/// the operator are logged where they arise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The session has ended.
    #[error("The session has ended: initialize again")]
    Ended,
    /// The registry is being stopped.
    #[error("Shutting down: try again later")]
    ShuttingDown,
    /// The user has to sign in again.
    #[error("Sign in again")]
    SignInRequired,
    /// No server can be started now.
    #[error("The MCP server cannot be started now: try again later")]
    Unavailable,
    /// The server did not start, or was gone before the session was open.
    #[error("The MCP server did not start")]
    NotStarted {
        /// The time after which a client may try again.
        retry_after: Duration,
    },
    /// The servers keep failing, and the next one is not started before this time is over.
    #[error("The MCP server keeps crashing; next start in {} s", whole_seconds(*.0))]
    BackingOff(Duration),
    /// The start of the server panicked or was dropped with the runtime.
    #[error("Internal error")]
    Aborted,
}

impl SessionError {
    /// The time after which a client may try again, if one is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::NotStarted { retry_after } | Self::BackingOff(retry_after) => Some(*retry_after),
            Self::Ended | Self::ShuttingDown | Self::SignInRequired | Self::Unavailable | Self::Aborted => None,
        }
    }
}

/// RFC 9110 section 10.2.3: `Retry-After` counts whole seconds. Rounded up, and never zero.
pub(crate) fn whole_seconds(duration: Duration) -> u64 {
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        assert_eq!(whole_seconds(Duration::ZERO), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(1001)), 2);
        assert_eq!(whole_seconds(Duration::from_secs(30)), 30);
    }
}
