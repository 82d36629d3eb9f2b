//! `session`'s credentials are `oauth`'s account of the user.

use oauth::{Account, AccountError, UpstreamToken};
use session::ports::{BoxFuture, Credential, CredentialError, Credentials};

/// The account of one user as the registry sees it.
#[derive(Debug)]
pub struct AccountCredentials(pub Account);

impl Credentials for AccountCredentials {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async { translate(self.0.current().await) })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async { translate(self.0.refresh().await) })
    }
}

fn translate(outcome: Result<UpstreamToken, AccountError>) -> Result<Credential, CredentialError> {
    match outcome {
        Ok(UpstreamToken {
            access_token,
            expires_at,
        }) => Ok(Credential {
            access_token,
            expires_at,
        }),
        Err(error @ AccountError::Terminal(_)) => Err(CredentialError::Terminal(error.into())),
        Err(error @ AccountError::Transient(_)) => Err(CredentialError::Transient(error.into())),
    }
}
