//! `session`'s credentials: the user's account in `oauth`.

use oauth::{Account, AccountError, UpstreamToken};
use session::ports::{BoxFuture, Credential, CredentialError, Credentials, SpawnError};

#[derive(Debug)]
pub(crate) struct AccountCredentials(pub(crate) Account);

impl Credentials for AccountCredentials {
    fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async { translate(self.0.valid_token().await) })
    }

    fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
        Box::pin(async { translate(self.0.refresh().await) })
    }
}

fn translate(outcome: Result<UpstreamToken, AccountError>) -> Result<Credential, CredentialError> {
    match outcome {
        Ok(token) => Ok(Credential {
            access_token: token.access_token,
            expires_at: token.expires_at,
        }),
        Err(error @ AccountError::Terminal(_)) => Err(CredentialError::Terminal(error.into())),
        Err(error @ AccountError::Transient(_)) => Err(CredentialError::Transient(error.into())),
    }
}

pub(super) fn spawn_error(error: CredentialError) -> SpawnError {
    let terminal = matches!(error, CredentialError::Terminal(_));
    let kind = if terminal {
        SpawnError::Credentials
    } else {
        SpawnError::Unavailable
    };
    kind(error.into())
}
