//! Sealed upstream tokens, leases of accounts, and running code exchanges.

use std::time::SystemTime;

use sqlx::{Executor, FromRow, Row as _, Sqlite, sqlite::SqliteRow};

use super::{
    Change, SqliteStore,
    columns::{seconds, time},
};
use crate::{
    ids::{ExchangeId, LeaseOwner, TokenVersion, UserId},
    ports::{AccountStore, LeaseAttempt, SignInTokens, StoreError, StoreFuture},
    records::AccountRecord,
};

impl AccountStore for SqliteStore {
    fn account_users(&self) -> StoreFuture<'_, Vec<UserId>> {
        Box::pin(async move {
            let users = sqlx::query_scalar("SELECT user_id FROM oauth_accounts ORDER BY user_id");
            Ok(users.fetch_all(&self.readers).await?)
        })
    }

    fn key_checks(&self) -> StoreFuture<'_, Vec<(u32, Vec<u8>)>> {
        Box::pin(async move {
            let checks = sqlx::query_as("SELECT number, hmac FROM oauth_key_checks");
            Ok(checks.fetch_all(&self.readers).await?)
        })
    }

    fn set_key_check(&self, number: u32, value: Vec<u8>) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("INSERT OR REPLACE INTO oauth_key_checks (number, hmac) VALUES (?, ?)");
            self.execute(query.bind(number).bind(value)).await.map(drop)
        })
    }

    fn account(&self, user: UserId) -> StoreFuture<'_, Option<AccountRecord>> {
        Box::pin(find(&self.readers, user))
    }

    fn replace_account(&self, account: AccountRecord, version: TokenVersion) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let query = sqlx::query(
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
            .bind(version);
            Ok(self.execute(query).await? == 1)
        })
    }

    fn place_account(&self, tokens: SignInTokens) -> StoreFuture<'_, bool> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let placed = find(&mut *change, tokens.account.user).await?.is_none() || put(&mut change, tokens).await?;
            change.commit().await?;
            Ok(placed)
        })
    }

    fn acquire_lease(
        &self,
        user: UserId,
        owner: LeaseOwner,
        until: SystemTime,
        now: SystemTime,
    ) -> StoreFuture<'_, LeaseAttempt> {
        Box::pin(async move {
            // A waiting process polls often, and must not hold up writers.
            if is_lease_held(&self.readers, user, owner, now).await? {
                let account = find(&self.readers, user).await?;
                return Ok(LeaseAttempt {
                    acquired: false,
                    account,
                });
            }
            let mut change = self.begin().await?;
            let acquired = execute!(
                change,
                "INSERT INTO oauth_leases (user_id, owner, expires_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user_id) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
                     WHERE owner = excluded.owner OR expires_at <= ?4",
                user,
                owner,
                seconds(until),
                seconds(now)
            ) == 1;
            let account = find(&mut *change, user).await?;
            change.commit().await?;
            Ok(LeaseAttempt { acquired, account })
        })
    }

    fn release_lease(&self, user: UserId, owner: LeaseOwner) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("DELETE FROM oauth_leases WHERE user_id = ? AND owner = ?");
            self.execute(query.bind(user).bind(owner)).await.map(drop)
        })
    }

    fn begin_exchange(&self, until: SystemTime) -> StoreFuture<'_, ExchangeId> {
        Box::pin(async move {
            let query = sqlx::query_scalar("INSERT INTO oauth_exchanges (expires_at) VALUES (?) RETURNING number");
            let mut change = self.begin().await?;
            let exchange = query.bind(seconds(until)).fetch_one(&mut *change).await?;
            change.commit().await?;
            Ok(exchange)
        })
    }

    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("UPDATE oauth_exchanges SET expires_at = ? WHERE number = ?");
            self.execute(query.bind(seconds(until)).bind(exchange)).await.map(drop)
        })
    }

    fn end_exchange(&self, exchange: ExchangeId) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("DELETE FROM oauth_exchanges WHERE number = ?");
            self.execute(query.bind(exchange)).await.map(drop)
        })
    }
}

pub(super) async fn find(
    executor: impl Executor<'_, Database = Sqlite>,
    user: UserId,
) -> Result<Option<AccountRecord>, StoreError> {
    let query = sqlx::query_as(
        "SELECT user_id, version, access_sealed, refresh_sealed, issued_at, expires_at
         FROM oauth_accounts WHERE user_id = ?",
    );
    Ok(query.bind(user).fetch_optional(executor).await?)
}

/// Reports whether another owner holds the lease of a user's account.
pub(super) async fn is_lease_held(
    executor: impl Executor<'_, Database = Sqlite>,
    user: UserId,
    owner: LeaseOwner,
    now: SystemTime,
) -> Result<bool, StoreError> {
    let query = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM oauth_leases WHERE user_id = ? AND owner <> ? AND expires_at > ?)",
    );
    let query = query.bind(user).bind(owner).bind(seconds(now));
    Ok(query.fetch_one(executor).await?)
}

/// Deletes the account of a user, and with it grants, codes and tokens.
pub(super) async fn delete(change: &mut Change, user: UserId) -> Result<(), StoreError> {
    execute!(change, "DELETE FROM oauth_accounts WHERE user_id = ?", user);
    Ok(())
}

/// Stores the tokens of a sign-in as the user's, unless another sign-in has stored its tokens since
/// the exchange began: then the order of the two is unknown, and the result is `false`. The same
/// tokens may be stored again.
pub(super) async fn put(change: &mut Change, tokens: SignInTokens) -> Result<bool, StoreError> {
    let SignInTokens { account, exchange } = tokens;
    let done = execute!(
        change,
        "INSERT INTO oauth_accounts (user_id, version, access_sealed, refresh_sealed, issued_at, expires_at, signed_in)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6,
                 coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'oauth_exchanges'), 0))
         ON CONFLICT (user_id) DO UPDATE SET
             version = excluded.version, access_sealed = excluded.access_sealed,
             refresh_sealed = excluded.refresh_sealed, issued_at = excluded.issued_at, expires_at = excluded.expires_at,
             signed_in = excluded.signed_in
             WHERE signed_in < ?7 OR version = excluded.version",
        account.user,
        account.version,
        account.access,
        account.refresh,
        seconds(account.issued_at),
        seconds(account.expires_at),
        exchange.map_or(i64::MAX, |exchange| exchange.0)
    );
    Ok(done == 1)
}

impl FromRow<'_, SqliteRow> for AccountRecord {
    fn from_row(row: &SqliteRow) -> sqlx::Result<Self> {
        Ok(Self {
            user: row.try_get("user_id")?,
            version: row.try_get("version")?,
            access: row.try_get("access_sealed")?,
            refresh: row.try_get("refresh_sealed")?,
            issued_at: time(row, "issued_at")?,
            expires_at: time(row, "expires_at")?,
        })
    }
}
