//! Pending authorizations, grants and codes. What tokens need is in `tokens`.

use std::time::SystemTime;

use sqlx::{Row as _, sqlite::SqliteRow};

use super::{SqliteStore, accounts, seconds, time, token_hash, tokens};
use crate::{
    ports::{BoxFuture, GrantStore, NewTokens, SignIn, Spent, StoreError},
    records::{CodeRecord, GrantRecord, PendingRecord, TokenHash},
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
            sqlx::query(
                "INSERT INTO oauth_pending
                     (state_hash, browser_hash, client_id, redirect_uri, client_state, code_challenge, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(pending.state.0.to_vec())
            .bind(pending.browser.0.to_vec())
            .bind(pending.client_id)
            .bind(pending.redirect_uri)
            .bind(pending.client_state)
            .bind(pending.code_challenge)
            .bind(seconds(pending.expires_at))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(true)
        })
    }

    fn take_pending(
        &self,
        state: TokenHash,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Option<PendingRecord>, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let row = sqlx::query(
                "DELETE FROM oauth_pending WHERE state_hash = ?
                 RETURNING browser_hash, client_id, redirect_uri, client_state, code_challenge, expires_at",
            )
            .bind(state.0.to_vec())
            .fetch_optional(&mut *change)
            .await?;
            change.commit().await?;
            let Some(row) = row else {
                return Ok(None);
            };
            let expires_at = time(row.try_get("expires_at")?);
            if expires_at <= now {
                return Ok(None);
            }
            Ok(Some(PendingRecord {
                state,
                browser: hash_of(&row, "browser_hash")?,
                client_id: row.try_get("client_id")?,
                redirect_uri: row.try_get("redirect_uri")?,
                client_state: row.try_get("client_state")?,
                code_challenge: row.try_get("code_challenge")?,
                expires_at,
            }))
        })
    }

    fn complete_sign_in(&self, sign_in: SignIn, now: SystemTime) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let SignIn { account, grant, code } = sign_in;
            let mut change = self.begin().await?;
            accounts::put(&mut change, account).await?;
            let displaced: Vec<String> = sqlx::query_scalar(
                "DELETE FROM oauth_grants WHERE grant_id IN (
                     SELECT grant_id FROM oauth_grants WHERE user_id = ?
                     ORDER BY last_used_at DESC, created_at DESC LIMIT -1 OFFSET ?)
                 RETURNING grant_id",
            )
            .bind(grant.user)
            .bind(GRANTS_PER_USER - 1)
            .fetch_all(&mut *change)
            .await?;
            sqlx::query(
                "INSERT INTO oauth_grants (grant_id, user_id, login, client_id, created_at, last_used_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
            )
            .bind(grant.grant)
            .bind(grant.user)
            .bind(grant.login)
            .bind(&grant.client_id)
            .bind(seconds(now))
            .execute(&mut *change)
            .await?;
            sqlx::query("UPDATE oauth_clients SET last_used_at = ? WHERE client_id = ?")
                .bind(seconds(now))
                .bind(grant.client_id)
                .execute(&mut *change)
                .await?;
            sqlx::query(
                "INSERT INTO oauth_codes (code_hash, grant_id, client_id, redirect_uri, code_challenge, expires_at)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(code.code.0.to_vec())
            .bind(code.grant)
            .bind(code.client_id)
            .bind(code.redirect_uri)
            .bind(code.code_challenge)
            .bind(seconds(code.expires_at))
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(displaced)
        })
    }

    fn code(&self, code: TokenHash) -> BoxFuture<'_, Result<Option<CodeRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, client_id, redirect_uri, code_challenge, expires_at
                 FROM oauth_codes WHERE code_hash = ?",
            )
            .bind(code.0.to_vec())
            .fetch_optional(&self.pool)
            .await?;
            let Some(row) = row else {
                return Ok(None);
            };
            Ok(Some(CodeRecord {
                code,
                grant: row.try_get("grant_id")?,
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

    fn bearer(&self, access: TokenHash, now: SystemTime) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, user_id, login, client_id
                 FROM oauth_access_tokens JOIN oauth_grants USING (grant_id)
                 WHERE token_hash = ? AND expires_at > ?",
            )
            .bind(access.0.to_vec())
            .bind(seconds(now))
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(grant_of_row).transpose()
        })
    }

    fn grant_of(&self, token: TokenHash) -> BoxFuture<'_, Result<Option<GrantRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT grant_id, user_id, login, client_id FROM oauth_grants
                 WHERE grant_id IN (SELECT grant_id FROM oauth_access_tokens WHERE token_hash = ?1
                                    UNION SELECT grant_id FROM oauth_refresh_tokens WHERE token_hash = ?1)",
            )
            .bind(token.0.to_vec())
            .fetch_optional(&self.pool)
            .await?;
            row.as_ref().map(grant_of_row).transpose()
        })
    }

    fn end_grant<'a>(&'a self, grant: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            tokens::end_grant(&mut change, grant).await?;
            change.commit().await?;
            Ok(())
        })
    }

    fn end_user(&self, user: i64) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            // Grants, codes and tokens go with the account.
            sqlx::query("DELETE FROM oauth_accounts WHERE user_id = ?")
                .bind(user)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(())
        })
    }
}

fn grant_of_row(row: &SqliteRow) -> Result<GrantRecord, StoreError> {
    Ok(GrantRecord {
        grant: row.try_get("grant_id")?,
        user: row.try_get("user_id")?,
        login: row.try_get("login")?,
        client_id: row.try_get("client_id")?,
    })
}

fn hash_of(row: &SqliteRow, column: &str) -> Result<TokenHash, StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    token_hash(&bytes)
}
