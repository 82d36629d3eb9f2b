//! Why an account gives no token: for good, or for now.

use std::sync::Arc;

use super::lease::Elsewhere;
use crate::{ids::UserId, ports::StoreError, seal::OpenError};

/// Why an account gives no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AccountError {
    /// The user has to sign in again. All grants of the user have been ended.
    #[error("the user has to sign in again: {0}")]
    Terminal(Refusal),
    /// It cannot be had now; a later try may succeed.
    #[error("the upstream token cannot be had now")]
    Transient(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

/// Why a user has to sign in again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no account.
    #[error("there is no account")]
    Missing,
    /// The stored tokens cannot be opened: another key of the same number has sealed them, or they have been changed.
    #[error("the stored tokens cannot be opened")]
    Sealed(#[source] OpenError),
    /// The upstream has locked the user out.
    #[error("the upstream has locked the user out")]
    LockedOut,
    /// The upstream has refused. The text is redacted.
    #[error("the upstream refuses: {0}")]
    Upstream(String),
}

impl From<StoreError> for AccountError {
    fn from(error: StoreError) -> Self {
        Self::Transient(Arc::new(error))
    }
}

impl AccountError {
    /// The renewal ended without an outcome: its task panicked or the runtime is shutting down.
    pub(super) fn cut_short() -> Self {
        Self::Transient(Arc::new(std::io::Error::other("the renewal was cut short")))
    }

    /// What is stored cannot be opened here and now.
    pub(super) fn unopened(user: UserId, error: OpenError) -> Self {
        tracing::error!(user = user.0, %error, "the account cannot be opened: nothing is done for its user until the key is there");
        Self::Transient(Arc::new(error))
    }

    /// Another process renews the account.
    pub(super) fn elsewhere() -> Self {
        Self::Transient(Arc::new(Elsewhere))
    }
}
