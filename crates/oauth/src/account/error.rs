//! Failures to give out an upstream token: terminal or transient.

use std::sync::Arc;

use crate::{BoxError, ids::UserId, ports::StoreError, seal::OpenError};

/// The reason why an account gives no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    /// The user has to sign in again. All grants of the user have ended.
    #[error("the user has to sign in again: {0}")]
    Terminal(TerminalError),
    /// There is no token now; a later try may succeed.
    #[error("the Forgejo token is unavailable")]
    Transient(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// The reason why a user has to sign in again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TerminalError {
    /// There is no account.
    #[error("the user has no account")]
    NoAccount,
    /// The user is on no allow-list any more.
    #[error("the user is on no allow-list any more")]
    NotAllowed,
    /// The upstream has locked the user out.
    #[error("Forgejo has locked the user out")]
    LockedOut,
    /// The upstream refuses the refresh token. The text is redacted.
    #[error("Forgejo refuses the refresh token: {0}")]
    Refused(String),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::transient(error)
    }
}

impl AccountError {
    pub(super) fn transient(error: impl Into<BoxError>) -> Self {
        Self::Transient(Arc::from(error.into()))
    }

    /// The stored tokens cannot be opened with the keys of this process.
    pub(super) fn unreadable(user: UserId, error: OpenError) -> Self {
        tracing::error!(
            user = user.0, %error,
            "cannot open the Forgejo tokens of the user: requests of the user fail until the key is in the key file"
        );
        Self::transient(error)
    }

    /// Another process holds the lease of the account.
    pub(super) fn lease_held() -> Self {
        Self::transient("another broker is renewing the Forgejo token")
    }
}
