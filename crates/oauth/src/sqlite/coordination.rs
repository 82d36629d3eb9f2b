//! Leases of accounts, and running code exchanges.

use std::time::SystemTime;

use sqlx::{Executor, Sqlite};

use super::{SqliteStore, accounts, columns::seconds};
use crate::{
    ids::{ExchangeId, LeaseOwner, UserId},
    ports::{ExchangeStore, LeaseAttempt, LeaseStore, StoreError, StoreFuture},
};

impl LeaseStore for SqliteStore {
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
                let account = accounts::find(&self.readers, user).await?;
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
            );
            let account = accounts::find(&mut *change, user).await?;
            change.commit().await?;
            Ok(LeaseAttempt {
                acquired: acquired == 1,
                account,
            })
        })
    }

    fn release_lease(&self, user: UserId, owner: LeaseOwner) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("DELETE FROM oauth_leases WHERE user_id = ? AND owner = ?");
            self.execute(query.bind(user).bind(owner)).await.map(drop)
        })
    }
}

impl ExchangeStore for SqliteStore {
    fn begin_exchange(&self, until: SystemTime) -> StoreFuture<'_, ExchangeId> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let exchange = sqlx::query_scalar("INSERT INTO oauth_exchanges (expires_at) VALUES (?) RETURNING number")
                .bind(seconds(until))
                .fetch_one(&mut *change)
                .await?;
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
    Ok(query
        .bind(user)
        .bind(owner)
        .bind(seconds(now))
        .fetch_one(executor)
        .await?)
}
