//! The place of new upstream tokens in the order of the user's sign-ins.

use std::time::Duration;

use super::CodeExchanges;
use crate::{
    ids::{ExchangeId, UserId},
    ports::{SignIn, SignInTokens, StoreError, UpstreamError, UpstreamTokens},
    records::CodeRecord,
    retry,
};

/// The wait after a renewal that Forgejo has not answered.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);
/// The number of renewals that look for the newest tokens.
const MAX_RENEWALS: u32 = 3;

impl CodeExchanges {
    /// Stores the tokens of an exchange, with the code and the grant of the sign-in if it has one.
    pub(crate) async fn store_sign_in_tokens(
        &self,
        mut exchange: ExchangeId,
        user: UserId,
        mut tokens: UpstreamTokens,
        code: Option<CodeRecord>,
    ) {
        let code = code.as_ref();
        for _ in 0..MAX_RENEWALS {
            if self.store(user, Some((&tokens, Some(exchange))), code).await {
                return;
            }
            // The store is the only part that can fail.
            let renewed = retry::until_stored(user, || {
                self.run(async |exchange| Ok((exchange, self.upstream.refresh(&tokens.refresh_token).await)))
            });
            match renewed.await {
                (by, Ok(renewed)) => (exchange, tokens) = (by, renewed),
                // The stored tokens are the valid ones. The grant goes on with them.
                (_, Err(UpstreamError::Refused(_) | UpstreamError::Unconfirmed(_) | UpstreamError::LockedOut(_))) => {
                    self.store(user, None, code).await;
                    return;
                }
                // It says nothing about the tokens: the next renewal may.
                (_, Err(_)) => tokio::time::sleep(RENEWAL_INTERVAL).await,
            }
        }
        self.store(user, Some((&tokens, None)), code).await;
    }

    /// Returns `false` if the order of the tokens is unknown.
    async fn store(
        &self,
        user: UserId,
        tokens: Option<(&UpstreamTokens, Option<ExchangeId>)>,
        code: Option<&CodeRecord>,
    ) -> bool {
        let tokens = tokens.map(|(tokens, exchange)| SignInTokens {
            account: self.sealer.seal_account(user, tokens, self.clock.now()),
            exchange,
        });
        retry::until_stored(user, || self.store_once(tokens.clone(), code)).await
    }

    async fn store_once(&self, tokens: Option<SignInTokens>, code: Option<&CodeRecord>) -> Result<bool, StoreError> {
        let Some(code) = code.cloned() else {
            return match tokens {
                Some(tokens) => self.store.place_account(tokens).await,
                None => Ok(true),
            };
        };
        let requested = code.grant.clone();
        let sign_in = SignIn { tokens, code };
        let Some(signed_in) = self.revocations.complete_sign_in(sign_in, self.clock.now()).await? else {
            return Ok(false);
        };
        tracing::info!(
            user = requested.user.0,
            login = requested.login,
            client = requested.client_id.0,
            grant = signed_in.grant.0,
            "signed in"
        );
        Ok(true)
    }
}
