//! The place of new upstream tokens in the order of the user's sign-ins.

use super::CodeExchanges;
use crate::{
    ids::{ExchangeId, UserId},
    ports::{PairPlacement, SignIn, SignInTokens, StoreError, UpstreamError, UpstreamTokens},
    records::{CodeRecord, GrantRecord},
    retry,
};

/// The number of renewals that look for the newest tokens.
const MAX_RENEWALS: u32 = 3;

impl CodeExchanges {
    /// Stores the tokens of an exchange, with the grant of the sign-in if it has one.
    pub(crate) async fn place(
        &self,
        mut exchange: ExchangeId,
        user: UserId,
        mut tokens: UpstreamTokens,
        grant: Option<(GrantRecord, CodeRecord)>,
    ) -> Result<(), StoreError> {
        for _ in 0..MAX_RENEWALS {
            match self
                .store(user, Some((&tokens, Some(exchange))), grant.as_ref())
                .await?
            {
                PairPlacement::Stored | PairPlacement::NoAccount => return Ok(()),
                PairPlacement::OrderUnknown => {}
            }
            let renewed = self
                .run(async |exchange| {
                    Ok::<_, StoreError>((exchange, self.upstream.refresh(&tokens.refresh_token).await))
                })
                .await?;
            match renewed {
                (by, Ok(renewed)) => (exchange, tokens) = (by, renewed),
                // The stored tokens are the valid ones. The grant goes on with them.
                (_, Err(UpstreamError::Refused(_))) => {
                    self.store(user, None, grant.as_ref()).await?;
                    return Ok(());
                }
                // It says nothing about the tokens: the next renewal may.
                (
                    _,
                    Err(UpstreamError::Misconfigured(_) | UpstreamError::Unavailable(_) | UpstreamError::Unexpected(_)),
                ) => {}
            }
        }
        self.store(user, Some((&tokens, None)), grant.as_ref()).await?;
        Ok(())
    }

    async fn store(
        &self,
        user: UserId,
        tokens: Option<(&UpstreamTokens, Option<ExchangeId>)>,
        grant: Option<&(GrantRecord, CodeRecord)>,
    ) -> Result<PairPlacement, StoreError> {
        let tokens = tokens.map(|(tokens, exchange)| SignInTokens {
            account: self.sealer.seal_account(user, tokens, self.clock.now()),
            exchange,
        });
        let placement = retry::write(|| self.store_once(tokens.clone(), grant)).await;
        placement.inspect_err(|_| {
            tracing::error!(user = user.0, "a sign-in is lost: writing to the store failed");
        })
    }

    async fn store_once(
        &self,
        tokens: Option<SignInTokens>,
        grant: Option<&(GrantRecord, CodeRecord)>,
    ) -> Result<PairPlacement, StoreError> {
        let Some((grant, code)) = grant.cloned() else {
            return match tokens {
                Some(tokens) => self.accounts.place_account(tokens).await,
                None => Ok(PairPlacement::Stored),
            };
        };
        let (user, login, client) = (grant.user, grant.login.clone(), grant.client_id.clone());
        let sign_in = SignIn { tokens, grant, code };
        let Some(signed_in) = self.revocations.complete_sign_in(sign_in, self.clock.now()).await? else {
            return Ok(PairPlacement::OrderUnknown);
        };
        tracing::info!(
            user = user.0,
            login,
            client = client.0,
            grant = signed_in.grant.0,
            "signed in"
        );
        Ok(PairPlacement::Stored)
    }
}
