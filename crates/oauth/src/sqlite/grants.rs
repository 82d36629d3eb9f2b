//! Grants, and the lookup of codes and tokens.

use std::time::SystemTime;

use sqlx::{FromRow, Row as _, sqlite::SqliteRow};

use super::{
    Change, SqliteStore,
    columns::{seconds, time},
    pending,
};
use crate::{
    ids::{ClientId, GrantId, UserId},
    ports::{GrantStore, PendingLookup, SignedIn, StoreError, StoreFuture},
    records::{AccessTokenRecord, CodeRecord, GrantRecord, GrantSummary, PendingRecord, TokenHash},
};

/// The largest number of grants of a user. Above it, the ones used least recently end.
const MAX_GRANTS_PER_USER: i64 = 100;

impl GrantStore for SqliteStore {
    fn insert_pending(&self, pending: PendingRecord, limit: u32, now: SystemTime) -> StoreFuture<'_, bool> {
        Box::pin(pending::insert(self, pending, limit, now))
    }

    fn take_pending(&self, state: TokenHash, browser: TokenHash, now: SystemTime) -> StoreFuture<'_, PendingLookup> {
        Box::pin(pending::take(self, state, browser, now))
    }

    fn only_pending(&self, browser: TokenHash, now: SystemTime) -> StoreFuture<'_, Option<PendingRecord>> {
        Box::pin(pending::only(self, browser, now))
    }

    fn code(&self, code: TokenHash) -> StoreFuture<'_, Option<CodeRecord>> {
        Box::pin(async move {
            let query = sqlx::query_as(
                "SELECT code_hash, grant_id, user_id, login, g.client_id, scope, redirect_uri, code_challenge, expires_at
                 FROM oauth_codes JOIN oauth_grants AS g USING (grant_id) WHERE code_hash = ?",
            );
            Ok(query.bind(code).fetch_optional(&self.readers).await?)
        })
    }

    fn access_token(&self, token: TokenHash, now: SystemTime) -> StoreFuture<'_, Option<AccessTokenRecord>> {
        Box::pin(async move {
            let query = sqlx::query_as(
                "SELECT grant_id, user_id, login, client_id, scope, expires_at
                 FROM oauth_access_tokens JOIN oauth_grants USING (grant_id)
                 WHERE token_hash = ? AND expires_at > ?",
            );
            let query = query.bind(token).bind(seconds(now));
            Ok(query.fetch_optional(&self.readers).await?)
        })
    }

    fn grant_of_token(&self, token: TokenHash) -> StoreFuture<'_, Option<GrantRecord>> {
        Box::pin(async move {
            let query = sqlx::query_as(
                "SELECT grant_id, user_id, login, client_id, scope FROM oauth_grants
                 WHERE grant_id IN (SELECT grant_id FROM oauth_access_tokens WHERE token_hash = ?1
                                    UNION SELECT grant_id FROM oauth_refresh_tokens WHERE token_hash = ?1)",
            );
            Ok(query.bind(token).fetch_optional(&self.readers).await?)
        })
    }

    fn grants_of_user(&self, user: UserId) -> StoreFuture<'_, Vec<GrantSummary>> {
        Box::pin(async move {
            let query = sqlx::query_as(
                "SELECT grant_id, user_id, login, client_id, scope, created_at, last_used_at
                 FROM oauth_grants WHERE user_id = ? ORDER BY last_used_at DESC, created_at DESC, grant_id",
            );
            Ok(query.bind(user).fetch_all(&self.readers).await?)
        })
    }

    fn clients_with_grants(&self) -> StoreFuture<'_, Vec<ClientId>> {
        Box::pin(async move {
            let query = sqlx::query_scalar("SELECT DISTINCT client_id FROM oauth_grants");
            Ok(query.fetch_all(&self.readers).await?)
        })
    }

    fn grants_of_client<'a>(&'a self, client_id: &'a ClientId) -> StoreFuture<'a, Vec<GrantId>> {
        Box::pin(async move {
            let query = sqlx::query_scalar("SELECT grant_id FROM oauth_grants WHERE client_id = ?");
            Ok(query.bind(client_id).fetch_all(&self.readers).await?)
        })
    }

    fn record_uses(&self, uses: Vec<(GrantId, SystemTime)>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            for (grant, at) in uses {
                for statement in [
                    "UPDATE oauth_grants SET last_used_at = max(last_used_at, ?1) WHERE grant_id = ?2",
                    "UPDATE oauth_clients SET last_used_at = max(last_used_at, ?1)
                     WHERE client_id = (SELECT client_id FROM oauth_grants WHERE grant_id = ?2)",
                ] {
                    execute!(change, statement, seconds(at), &grant);
                }
            }
            Ok(change.commit().await?)
        })
    }
}

/// Updates the grant that the user has for the client, or adds it.
pub(super) async fn put(change: &mut Change, grant: &GrantRecord, now: SystemTime) -> Result<SignedIn, StoreError> {
    let existing: Option<GrantId> = sqlx::query_scalar(
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
    if let Some(grant) = existing {
        return Ok(SignedIn {
            grant,
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
    .bind(MAX_GRANTS_PER_USER - 1)
    .fetch_all(&mut **change)
    .await?;
    execute!(
        change,
        "INSERT INTO oauth_grants (grant_id, user_id, login, client_id, scope, created_at, last_used_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
        &grant.id,
        grant.user,
        &grant.login,
        &grant.client_id,
        &grant.scope,
        seconds(now)
    );
    Ok(SignedIn {
        grant: grant.id.clone(),
        displaced,
    })
}

/// Deletes a grant, and with it codes and tokens.
pub(super) async fn delete(change: &mut Change, grant: &GrantId) -> Result<(), StoreError> {
    execute!(change, "DELETE FROM oauth_grants WHERE grant_id = ?", grant);
    Ok(())
}

/// Reads a grant that exists.
pub(super) async fn find(change: &mut Change, grant: &GrantId) -> Result<GrantRecord, StoreError> {
    let query =
        sqlx::query_as("SELECT grant_id, user_id, login, client_id, scope FROM oauth_grants WHERE grant_id = ?");
    Ok(query.bind(grant).fetch_one(&mut **change).await?)
}

impl FromRow<'_, SqliteRow> for GrantRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            id: row.try_get("grant_id")?,
            user: row.try_get("user_id")?,
            login: row.try_get("login")?,
            client_id: row.try_get("client_id")?,
            scope: row.try_get("scope")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for GrantSummary {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            grant: GrantRecord::from_row(row)?,
            created_at: time(row, "created_at")?,
            last_used_at: time(row, "last_used_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for AccessTokenRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            grant: GrantRecord::from_row(row)?,
            expires_at: time(row, "expires_at")?,
        })
    }
}

impl FromRow<'_, SqliteRow> for CodeRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            code: row.try_get("code_hash")?,
            grant: GrantRecord::from_row(row)?,
            redirect_uri: row.try_get("redirect_uri")?,
            code_challenge: row.try_get("code_challenge")?,
            expires_at: time(row, "expires_at")?,
        })
    }
}
