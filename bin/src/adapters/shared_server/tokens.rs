//! `bridge`'s tokens for a shared server: the credentials of a user in `session`.

use std::sync::Arc;

use bridge::http::{TokenError, TokenSource};
use http::HeaderValue;
use secrecy::ExposeSecret as _;
use session::ports::{BoxFuture, Credential, CredentialError, Credentials, UserId};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::renewal_limiter::RenewalLimiter;

/// The tokens of one user, renewed within the limits of all sessions of the user.
#[derive(Debug)]
pub(super) struct UserTokens {
    pub(super) user: UserId,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) renewal_limiter: Arc<RenewalLimiter>,
    /// The renewals in progress.
    pub(super) tasks: TaskTracker,
}

impl UserTokens {
    async fn replace(&self, refused: &HeaderValue) -> Result<Option<HeaderValue>, TokenError> {
        let renewals = match self.renewal_limiter.of(&self.user, Instant::now()) {
            Some(renewals) => Some(renewals.lock_owned().await),
            None => None,
        };
        let current = bearer(self.credentials.current().await)?;
        if current != *refused {
            // Another session of the user, or a new sign-in, has renewed it meanwhile.
            return Ok(Some(current));
        }
        let Some(mut renewals) = renewals else {
            return Ok(None);
        };
        if !renewals.begin(Instant::now()) {
            return Ok(None);
        }
        tracing::info!("the server refuses the user's token; renewing it");
        let credentials = Arc::clone(&self.credentials);
        // On a task of its own: the next holder of the lock finds the new token, even if the
        // request is cancelled.
        let renewal = async move {
            let renewed = credentials.refresh().await;
            drop(renewals);
            renewed
        };
        let renewed = self.tasks.spawn(renewal.in_current_span()).await;
        bearer(renewed.unwrap_or_else(|error| Err(CredentialError::Transient(error.into())))).map(Some)
    }
}

impl TokenSource for UserTokens {
    fn current(&self) -> BoxFuture<'_, Result<HeaderValue, TokenError>> {
        Box::pin(async { bearer(self.credentials.current().await) })
    }

    fn replacement<'a>(&'a self, refused: &'a HeaderValue) -> BoxFuture<'a, Result<Option<HeaderValue>, TokenError>> {
        Box::pin(self.replace(refused))
    }
}

fn bearer(outcome: Result<Credential, CredentialError>) -> Result<HeaderValue, TokenError> {
    let credential = outcome.map_err(|error| match error {
        CredentialError::Terminal(_) => TokenError::SignInRequired(error.into()),
        CredentialError::Transient(_) => TokenError::Unavailable(error.into()),
    })?;
    let value = HeaderValue::try_from(format!("Bearer {}", credential.access_token.expose_secret()));
    let mut value = value.map_err(|error| TokenError::Unavailable(error.into()))?;
    // The HTTP stack does not log sensitive values.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::SystemTime,
    };

    use super::*;

    /// Tokens with a number that each renewal raises.
    #[derive(Debug, Default)]
    struct Numbered(AtomicU64);

    impl Credentials for Numbered {
        fn current(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
            let number = self.0.load(Ordering::Relaxed);
            Box::pin(async move {
                Ok(Credential {
                    access_token: format!("token-{number}").into(),
                    expires_at: SystemTime::UNIX_EPOCH,
                })
            })
        }

        fn refresh(&self) -> BoxFuture<'_, Result<Credential, CredentialError>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.current()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_token_is_renewed_once_a_minute_for_all_sessions() {
        let (limiter, credentials) = (Arc::new(RenewalLimiter::default()), Arc::new(Numbered::default()));
        let tokens = || UserTokens {
            user: UserId("alice".into()),
            credentials: Arc::clone(&credentials) as Arc<dyn Credentials>,
            renewal_limiter: Arc::clone(&limiter),
            tasks: TaskTracker::new(),
        };
        let (one, two) = (tokens(), tokens());
        let first = one.current().await.unwrap();
        assert!(first.is_sensitive());
        let second = one.replacement(&first).await.unwrap().unwrap();
        assert_eq!(second, "Bearer token-1");
        assert_eq!(
            two.replacement(&first).await.unwrap(),
            Some(second.clone()),
            "it is renewed already"
        );
        assert_eq!(two.replacement(&second).await.unwrap(), None);
        tokio::time::advance(super::super::renewal_limiter::MIN_RENEWAL_INTERVAL).await;
        assert_eq!(two.replacement(&second).await.unwrap().unwrap(), "Bearer token-2");
    }
}
