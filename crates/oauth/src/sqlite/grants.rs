//! Grants and codes. What tokens need is in `tokens`, what sign-ins under way need in `pending`.

use std::time::SystemTime;

use sqlx::{Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{SqliteStore, accounts, pending, seconds, time, tokens};
use crate::{
    ids::{GrantId, UserId},
    ports::{BoxFuture, GrantStore, NewTokens, SignIn, SignedIn, Spent, StoreError, Taken},
    records::{BearerRecord, CodeRecord, GrantRecord, GrantSummary, PendingRecord, TokenHash},
    secret,
};

/// How many grants a user may have. The ones used least recently end when there are more.
const GRANTS_PER_USER: i64 = 100;

impl GrantStore for SqliteStore {
    fn insert_pending(
        &self,
        pending: PendingRecord,
        cap: u32,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            // Clearing up here keeps the table at the cap, whenever the purge comes.
            sqlx::query("DELETE FROM oauth_pending WHERE expires_at <= ?")
                .bind(seconds(now))
                .execute(&mut *change)
                .await?;
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM oauth_pending")
                .fetch_one(&mut *change)
                .await?;
            if count >= i64::from(cap) {
                return Ok(false);
            }
            pending::put(&mut change, pending).await?;
            change.commit().await?;
            Ok(true)
        })
    }

    fn take_pending(
        &self,
        state: TokenHash,
        browser: TokenHash,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Taken, StoreError>> {
        Box::pin(async move {
            // What anybody may make up takes no turn of a writer.
            let known: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM oauth_pending WHERE state_hash = ?)")
                .bind(state.0.to_vec())
                .fetch_one(&self.readers)
                .await?;
            if !known {
                return Ok(Taken::Gone);
            }
            let mut change = self.begin().await?;
            let Some(pending) = pending::take(&mut change, state).await? else {
                return Ok(Taken::Gone);
            };
            if pending.expires_at <= now {
                return Ok(Taken::Gone);
            }
            if !secret::same(&pending.browser.0, &browser.0) {
                // The change is dropped with the deletion in it.
                return Ok(Taken::OtherBrowser);
            }
            change.commit().await?;
            Ok(Taken::Found(Box::new(pending)))
        })
    }

    fn complete_sign_in(
        &self,
        sign_in: SignIn,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<SignedIn>, StoreError>> {
        Box::pin(async move {
            let SignIn { pair, grant, code } = sign_in;
            let mut change = self.begin().await?;
            if let Some(pair) = pair
                && !accounts::put(&mut change, pair).await?
            {
                return Ok(None);
            }
            let client_id = grant.client_id.clone();
            let signed_in = put_grant(&mut change, grant, now).await?;
            sqlx::query("UPDATE oauth_clients SET last_used_at = ? WHERE client_id = ?")
                .bind(seconds(now))
                .bind(client_id)
                .execute(&mut *change)
                .await?;
            sqlx::query(
                "INSERT INTO oauth_codes (code_hash, grant_id, client_id, redirect_uri, code_challenge, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (code_hash) DO NOTHING",
            )
            .bind(code.code.0.to_vec())
            .bind(&signed_in.grant)
            .bind(code.client_id)
            .bind(code.redirect_uri)
            .bind(code.code_challenge)
            .bind(seconds(code.expires_at))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(Some(signed_in))
        })
    }

    fn code(&self, code: TokenHash) -> BoxFuture<'_, Result<Option<CodeRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, user_id, c.client_id, redirect_uri, code_challenge, expires_at
                 FROM oauth_codes AS c JOIN oauth_grants USING (grant_id) WHERE code_hash = ?",
            )
            .bind(code.0.to_vec())
            .fetch_optional(&self.readers)
            .await?;
            let Some(row) = row else {
                return Ok(None);
            };
            Ok(Some(CodeRecord {
                code,
                grant: row.try_get("grant_id")?,
                user: row.try_get("user_id")?,
                client_id: row.try_get("client_id")?,
                redirect_uri: row.try_get("redirect_uri")?,
                code_challenge: row.try_get("code_challenge")?,
                expires_at: time(row.try_get("expires_at")?),
            }))
        })
    }

    fn spend_code(&self, code: TokenHash, new: NewTokens, now: SystemTime) -> BoxFuture<'_, Result<Spent, StoreError>> {
        Box::pin(tokens::spend_code(self, code, new, now))
    }

    fn spend_refresh(
        &self,
        refresh: TokenHash,
        new: NewTokens,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Spent, StoreError>> {
        Box::pin(tokens::spend_refresh(self, refresh, new, now))
    }

    fn bearer(&self, access: TokenHash, now: SystemTime) -> BoxFuture<'_, Result<Option<BearerRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, user_id, login, client_id, scope, expires_at
                 FROM oauth_access_tokens JOIN oauth_grants USING (grant_id)
                 WHERE token_hash = ? AND expires_at > ?",
            )
            .bind(access.0.to_vec())
            .bind(seconds(now))
            .fetch_optional(&self.readers)
            .await?;
            let Some(row) = row else {
                return Ok(None);
            };
            Ok(Some(BearerRecord {
                grant: grant_of_row(&row)?,
                expires_at: time(row.try_get("expires_at")?),
            }))
        })
    }

    fn record_uses(&self, uses: Vec<(GrantId, SystemTime)>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            for (grant, at) in uses {
                for statement in [
                    "UPDATE oauth_grants SET last_used_at = max(last_used_at, ?1) WHERE grant_id = ?2",
                    "UPDATE oauth_clients SET last_used_at = max(last_used_at, ?1)
                     WHERE client_id = (SELECT client_id FROM oauth_grants WHERE grant_id = ?2)",
                ] {
                    sqlx::query(statement)
                        .bind(seconds(at))
                        .bind(&grant)
                        .execute(&mut *change)
                        .await?;
                }
            }
            change.commit().await?;
            Ok(())
        })
    }

    fn grant_of(&self, token: TokenHash) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, user_id, login, client_id, scope FROM oauth_grants
                 WHERE grant_id IN (SELECT grant_id FROM oauth_access_tokens WHERE token_hash = ?1
                                    UNION SELECT grant_id FROM oauth_refresh_tokens WHERE token_hash = ?1)",
            )
            .bind(token.0.to_vec())
            .fetch_optional(&self.readers)
            .await?;
            row.as_ref().map(grant_of_row).transpose()
        })
    }

    fn grants_of(&self, user: UserId) -> BoxFuture<'_, Result<Vec<GrantSummary>, StoreError>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT grant_id, user_id, login, client_id, scope, created_at, last_used_at
                 FROM oauth_grants WHERE user_id = ? ORDER BY last_used_at DESC, created_at DESC, grant_id",
            )
            .bind(user)
            .fetch_all(&self.readers)
            .await?;
            rows.iter()
                .map(|row| {
                    Ok(GrantSummary {
                        grant: grant_of_row(row)?,
                        created_at: time(row.try_get("created_at")?),
                        last_used_at: time(row.try_get("last_used_at")?),
                    })
                })
                .collect()
        })
    }

    fn end_grant<'a>(&'a self, grant: &'a GrantId) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            tokens::end_grant(&mut change, grant).await?;
            change.commit().await?;
            Ok(())
        })
    }

    fn end_user(&self, user: UserId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            accounts::end(&mut change, user).await?;
            change.commit().await?;
            Ok(())
        })
    }
}

/// Has the grant that the user has for the client go on, or adds it.
async fn put_grant(
    change: &mut Transaction<'static, Sqlite>,
    grant: GrantRecord,
    now: SystemTime,
) -> Result<SignedIn, StoreError> {
    let goes_on: Option<GrantId> = sqlx::query_scalar(
        "UPDATE oauth_grants SET login = ?, scope = ?, last_used_at = ?
         WHERE grant_id = (SELECT grant_id FROM oauth_grants WHERE user_id = ? AND client_id = ?
                           ORDER BY last_used_at DESC, grant_id LIMIT 1)
         RETURNING grant_id",
    )
    .bind(&grant.login)
    .bind(&grant.scope)
    .bind(seconds(now))
    .bind(grant.user)
    .bind(&grant.client_id)
    .fetch_optional(&mut **change)
    .await?;
    if let Some(name) = goes_on {
        return Ok(SignedIn {
            grant: name,
            displaced: Vec::new(),
        });
    }
    let displaced: Vec<GrantId> = sqlx::query_scalar(
        "DELETE FROM oauth_grants WHERE grant_id IN (
             SELECT grant_id FROM oauth_grants WHERE user_id = ?
             ORDER BY last_used_at DESC, created_at DESC LIMIT -1 OFFSET ?)
         RETURNING grant_id",
    )
    .bind(grant.user)
    .bind(GRANTS_PER_USER - 1)
    .fetch_all(&mut **change)
    .await?;
    sqlx::query(
        "INSERT INTO oauth_grants (grant_id, user_id, login, client_id, scope, created_at, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
    )
    .bind(&grant.id)
    .bind(grant.user)
    .bind(grant.login)
    .bind(grant.client_id)
    .bind(grant.scope)
    .bind(seconds(now))
    .execute(&mut **change)
    .await?;
    Ok(SignedIn {
        grant: grant.id,
        displaced,
    })
}

/// Finds a grant that is known to be there.
pub(super) async fn find(
    change: &mut Transaction<'static, Sqlite>,
    grant: &GrantId,
) -> Result<GrantRecord, StoreError> {
    let row = sqlx::query("SELECT grant_id, user_id, login, client_id, scope FROM oauth_grants WHERE grant_id = ?")
        .bind(grant)
        .fetch_one(&mut **change)
        .await?;
    grant_of_row(&row)
}

fn grant_of_row(row: &SqliteRow) -> Result<GrantRecord, StoreError> {
    Ok(GrantRecord {
        id: row.try_get("grant_id")?,
        user: row.try_get("user_id")?,
        login: row.try_get("login")?,
        client_id: row.try_get("client_id")?,
        scope: row.try_get("scope")?,
    })
}
