//! Sealed upstream tokens.

use sqlx::{Row as _, Sqlite, Transaction};

use super::{SqliteStore, seconds, time};
use crate::{
    ports::{AccountStore, BoxFuture, StoreError},
    records::AccountRecord,
};

impl AccountStore for SqliteStore {
    fn account_users(&self) -> BoxFuture<'_, Result<Vec<i64>, StoreError>> {
        Box::pin(async move {
            let users = sqlx::query_scalar("SELECT user_id FROM oauth_accounts ORDER BY user_id")
                .fetch_all(&self.readers)
                .await?;
            Ok(users)
        })
    }

    fn account(&self, user: i64) -> BoxFuture<'_, Result<Option<AccountRecord>, StoreError>> {
        Box::pin(async move {
            let row = sqlx::query(
                "SELECT version, access_sealed, refresh_sealed, issued_at, expires_at
                 FROM oauth_accounts WHERE user_id = ?",
            )
            .bind(user)
            .fetch_optional(&self.readers)
            .await?;
            let Some(row) = row else {
                return Ok(None);
            };
            Ok(Some(AccountRecord {
                user,
                version: row.try_get("version")?,
                access: row.try_get("access_sealed")?,
                refresh: row.try_get("refresh_sealed")?,
                issued_at: time(row.try_get("issued_at")?),
                expires_at: time(row.try_get("expires_at")?),
            }))
        })
    }

    fn replace_account(&self, account: AccountRecord, version: Option<i64>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let done = sqlx::query(
                "UPDATE oauth_accounts
                 SET version = ?, access_sealed = ?, refresh_sealed = ?, issued_at = ?, expires_at = ?
                 WHERE user_id = ? AND version = coalesce(?, version)",
            )
            .bind(account.version)
            .bind(account.access)
            .bind(account.refresh)
            .bind(seconds(account.issued_at))
            .bind(seconds(account.expires_at))
            .bind(account.user)
            .bind(version)
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(done.rows_affected() == 1)
        })
    }
}

/// Puts a pair in the place of whatever the user has.
pub(super) async fn put(change: &mut Transaction<'static, Sqlite>, account: AccountRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO oauth_accounts (user_id, version, access_sealed, refresh_sealed, issued_at, expires_at)
         VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (user_id) DO UPDATE SET
             version = excluded.version, access_sealed = excluded.access_sealed,
             refresh_sealed = excluded.refresh_sealed, issued_at = excluded.issued_at, expires_at = excluded.expires_at",
    )
    .bind(account.user)
    .bind(account.version)
    .bind(account.access)
    .bind(account.refresh)
    .bind(seconds(account.issued_at))
    .bind(seconds(account.expires_at))
    .execute(&mut **change)
    .await?;
    Ok(())
}
