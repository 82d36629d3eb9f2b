//! Sealed upstream tokens.

use sqlx::{Executor, Row as _, Sqlite, Transaction};

use super::{SqliteStore, seconds, time};
use crate::{
    ids::{PairId, UserId},
    ports::{AccountStore, BoxFuture, Placed, SignedInPair, StoreError},
    records::AccountRecord,
};

impl AccountStore for SqliteStore {
    fn account_users(&self) -> BoxFuture<'_, Result<Vec<UserId>, StoreError>> {
        Box::pin(async move {
            let users = sqlx::query_scalar("SELECT user_id FROM oauth_accounts ORDER BY user_id")
                .fetch_all(&self.readers)
                .await?;
            Ok(users)
        })
    }

    fn account(&self, user: UserId) -> BoxFuture<'_, Result<Option<AccountRecord>, StoreError>> {
        Box::pin(find(&self.readers, user))
    }

    fn replace_account(&self, account: AccountRecord, version: PairId) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let done = sqlx::query(
                "UPDATE oauth_accounts
                 SET version = ?, access_sealed = ?, refresh_sealed = ?, issued_at = ?, expires_at = ?
                 WHERE user_id = ? AND version = ?",
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

    fn place_account(&self, pair: SignedInPair) -> BoxFuture<'_, Result<Placed, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            if find(&mut *change, pair.account.user).await?.is_none() {
                return Ok(Placed::NoAccount);
            }
            if !put(&mut change, pair).await? {
                return Ok(Placed::Unclear);
            }
            change.commit().await?;
            Ok(Placed::Kept)
        })
    }
}

pub(super) async fn find<'c>(
    executor: impl Executor<'c, Database = Sqlite>,
    user: UserId,
) -> Result<Option<AccountRecord>, StoreError> {
    let row = sqlx::query(
        "SELECT version, access_sealed, refresh_sealed, issued_at, expires_at FROM oauth_accounts WHERE user_id = ?",
    )
    .bind(user)
    .fetch_optional(executor)
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
}

/// Forgets the account of a user. Grants, codes and tokens go with it.
pub(super) async fn end(change: &mut Transaction<'static, Sqlite>, user: UserId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM oauth_accounts WHERE user_id = ?")
        .bind(user)
        .execute(&mut **change)
        .await?;
    Ok(())
}

/// Puts the pair of a sign-in in the place of what the user has, unless a sign-in has put its pair there since the exchange
/// began: what the order of the two is does not show here. The same pair may be put there again.
pub(super) async fn put(change: &mut Transaction<'static, Sqlite>, pair: SignedInPair) -> Result<bool, StoreError> {
    let SignedInPair { account, exchange } = pair;
    let done = sqlx::query(
        "INSERT INTO oauth_accounts (user_id, version, access_sealed, refresh_sealed, issued_at, expires_at, signed_in)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'oauth_exchanges'), 0))
         ON CONFLICT (user_id) DO UPDATE SET
             version = excluded.version, access_sealed = excluded.access_sealed,
             refresh_sealed = excluded.refresh_sealed, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
             signed_in = excluded.signed_in
             WHERE signed_in < ?7 OR version = excluded.version",
    )
    .bind(account.user)
    .bind(account.version)
    .bind(account.access)
    .bind(account.refresh)
    .bind(seconds(account.issued_at))
    .bind(seconds(account.expires_at))
    .bind(exchange.map_or(i64::MAX, |exchange| exchange.0))
    .execute(&mut **change)
    .await?;
    Ok(done.rows_affected() == 1)
}
