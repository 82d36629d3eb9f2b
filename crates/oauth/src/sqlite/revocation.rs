//! Changes that can end access. A trigger enters each deleted grant in the log of revocations, the
//! table `oauth_endings`.

use std::time::SystemTime;

use sqlx::SqliteConnection;

use super::{SqliteStore, accounts, columns::seconds, grants, tokens};
use crate::{
    ids::{ClientId, ExchangeId, GrantId, UserId},
    ports::{
        NewTokens, PresentedToken, Redemption, RefusalOutcome, RefusedTokens, Revocation, RevocationBatch,
        RevocationStore, SignIn, SignedIn, StoreError, StoreFuture,
    },
    records::TokenHash,
};

/// The number of log entries that one call reads.
const BATCH_SIZE: i64 = 1000;

impl RevocationStore for SqliteStore {
    fn complete_sign_in(&self, sign_in: SignIn, now: SystemTime) -> StoreFuture<'_, Option<SignedIn>> {
        Box::pin(async move {
            let SignIn { tokens, code } = sign_in;
            let mut change = self.begin().await?;
            let placed = match tokens {
                Some(tokens) => accounts::put(&mut change, tokens).await?,
                // The account may have been ended since.
                None => accounts::find(&mut *change, code.grant.user).await?.is_some(),
            };
            if !placed {
                return Ok(None);
            }
            let signed_in = grants::put(&mut change, &code.grant, now).await?;
            execute!(
                change,
                "UPDATE oauth_clients SET last_used_at = ? WHERE client_id = ?",
                seconds(now),
                &code.grant.client_id
            );
            execute!(
                change,
                "INSERT INTO oauth_codes (code_hash, grant_id, client_id, redirect_uri, code_challenge, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (code_hash) DO NOTHING",
                code.code,
                &signed_in.grant,
                &code.grant.client_id,
                code.redirect_uri,
                code.code_challenge,
                seconds(code.expires_at)
            );
            change.commit().await?;
            Ok(Some(signed_in))
        })
    }

    fn redeem(&self, presented: PresentedToken, tokens: NewTokens, now: SystemTime) -> StoreFuture<'_, Redemption> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let outcome = match presented {
                PresentedToken::Code(code) => tokens::redeem_code(&mut change, code, &tokens, now).await?,
                PresentedToken::Refresh { token, grace } => {
                    tokens::redeem_refresh_token(&mut change, token, grace, &tokens, now).await?
                }
            };
            change.commit().await?;
            Ok(outcome)
        })
    }

    fn end_family(&self, token: TokenHash) -> StoreFuture<'_, Option<Revocation>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let ended = tokens::end_family_of(&mut change, token).await?;
            change.commit().await?;
            Ok(ended)
        })
    }

    fn delete_client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Vec<GrantId>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let ended = sqlx::query_scalar("DELETE FROM oauth_grants WHERE client_id = ? RETURNING grant_id")
                .bind(client_id)
                .fetch_all(&mut *change)
                .await?;
            for statement in [
                "DELETE FROM oauth_pending WHERE client_id = ?",
                "DELETE FROM oauth_clients WHERE client_id = ?",
            ] {
                execute!(change, statement, client_id);
            }
            change.commit().await?;
            Ok(ended)
        })
    }

    fn set_login<'a>(&'a self, user: UserId, login: &'a str) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            // Few users have another login, and a renewal must not wait for a writer for the
            // others.
            let differs =
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM oauth_grants WHERE user_id = ? AND login <> ?)");
            let differs: bool = differs.bind(user).bind(login).fetch_one(&self.readers).await?;
            if differs {
                let mut change = self.begin().await?;
                execute!(
                    change,
                    "UPDATE oauth_grants SET login = ? WHERE user_id = ?",
                    login,
                    user
                );
                change.commit().await?;
            }
            Ok(differs)
        })
    }

    fn end_grant<'a>(&'a self, grant: &'a GrantId) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            grants::delete(&mut change, grant).await?;
            Ok(change.commit().await?)
        })
    }

    fn end_user(&self, user: UserId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            accounts::delete(&mut change, user).await?;
            Ok(change.commit().await?)
        })
    }

    fn end_refused_user(&self, refused: RefusedTokens, now: SystemTime) -> StoreFuture<'_, RefusalOutcome> {
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            if let Some(outcome) = obstacle(&mut reader, refused, now).await? {
                return Ok(outcome);
            }
            drop(reader);
            let mut change = self.begin().await?;
            if let Some(outcome) = obstacle(&mut change, refused, now).await? {
                return Ok(outcome);
            }
            accounts::delete(&mut change, refused.user).await?;
            change.commit().await?;
            Ok(RefusalOutcome::Revoked)
        })
    }

    fn revocations(&self, after: Option<i64>) -> StoreFuture<'_, RevocationBatch> {
        Box::pin(async move {
            let mut batch = RevocationBatch::default();
            let Some(after) = after else {
                batch.position = sqlx::query_scalar(
                    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'oauth_endings'), 0)",
                )
                .fetch_one(&self.readers)
                .await?;
                return Ok(batch);
            };
            batch.position = after;
            let rows: Vec<(i64, GrantId, bool)> = sqlx::query_as(
                "SELECT number, grant_id, ended FROM oauth_endings WHERE number > ? ORDER BY number LIMIT ?",
            )
            .bind(after)
            .bind(BATCH_SIZE)
            .fetch_all(&self.readers)
            .await?;
            for (number, grant, whole_grant) in rows {
                // Entries are numbered without gaps, and the oldest are dropped first.
                batch.truncated |= number > batch.position + 1;
                batch.position = number;
                batch.revocations.push(Revocation { grant, whole_grant });
            }
            Ok(batch)
        })
    }
}

/// Returns why the user must not be ended, if so.
async fn obstacle(
    connection: &mut SqliteConnection,
    refused: RefusedTokens,
    now: SystemTime,
) -> Result<Option<RefusalOutcome>, StoreError> {
    let RefusedTokens {
        user, owner, newest, ..
    } = refused;
    if let Some(account) = accounts::find(&mut *connection, user).await?
        && Some(account.version) != refused.version
    {
        return Ok(Some(RefusalOutcome::Replaced(Box::new(account))));
    }
    if accounts::is_lease_held(&mut *connection, user, owner, now).await? {
        return Ok(Some(RefusalOutcome::LeaseHeld));
    }
    let running: Option<ExchangeId> =
        sqlx::query_scalar("SELECT max(number) FROM oauth_exchanges WHERE expires_at > ? AND number <= ?")
            .bind(seconds(now))
            .bind(newest.map_or(i64::MAX, |newest| newest.0))
            .fetch_one(&mut *connection)
            .await?;
    Ok(running.map(|exchange| RefusalOutcome::ExchangeRunning(newest.unwrap_or(exchange))))
}
