//! Leases, exchanges and endings: what several processes on the file have to know of each other.

use std::time::SystemTime;

use sqlx::{Row as _, SqliteConnection};

use super::{SqliteStore, accounts, seconds};
use crate::{
    ids::{ExchangeId, LeaseOwner, PairId, UserId},
    ports::{BoxFuture, EndedGrant, Endings, Judged, Lease, ProcessStore, StoreError},
};

/// A pair that the upstream has refused, and who says so.
struct Refused {
    user: UserId,
    version: Option<PairId>,
    owner: LeaseOwner,
    known: Option<ExchangeId>,
}

/// How many endings are read at once.
const ENDINGS_AT_ONCE: i64 = 1000;
/// Whether someone else than an owner has the lease of a user's account.
const HELD_BY_ANOTHER: &str =
    "SELECT EXISTS (SELECT 1 FROM oauth_leases WHERE user_id = ? AND owner <> ? AND expires_at > ?)";
/// How many endings are remembered.
pub(super) const ENDINGS: i64 = 10_000;

impl ProcessStore for SqliteStore {
    fn lease(
        &self,
        user: UserId,
        owner: LeaseOwner,
        until: SystemTime,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Lease, StoreError>> {
        Box::pin(async move {
            // Who waits for another one asks often: that takes no turn of a writer.
            let held: bool = sqlx::query_scalar(HELD_BY_ANOTHER)
                .bind(user)
                .bind(owner)
                .bind(seconds(now))
                .fetch_one(&self.readers)
                .await?;
            if held {
                let account = accounts::find(&self.readers, user).await?;
                return Ok(Lease { taken: false, account });
            }
            let mut change = self.begin().await?;
            let taken = sqlx::query(
                "INSERT INTO oauth_leases (user_id, owner, expires_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (user_id) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
                     WHERE owner = excluded.owner OR expires_at <= ?4",
            )
            .bind(user)
            .bind(owner)
            .bind(seconds(until))
            .bind(seconds(now))
            .execute(&mut *change)
            .await?;
            let account = accounts::find(&mut *change, user).await?;
            change.commit().await?;
            Ok(Lease {
                taken: taken.rows_affected() == 1,
                account,
            })
        })
    }

    fn release(&self, user: UserId, owner: LeaseOwner) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            sqlx::query("DELETE FROM oauth_leases WHERE user_id = ? AND owner = ?")
                .bind(user)
                .bind(owner)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(())
        })
    }

    fn begin_exchange(&self, until: SystemTime) -> BoxFuture<'_, Result<ExchangeId, StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            let number = sqlx::query_scalar("INSERT INTO oauth_exchanges (expires_at) VALUES (?) RETURNING number")
                .bind(seconds(until))
                .fetch_one(&mut *change)
                .await?;
            change.commit().await?;
            Ok(ExchangeId(number))
        })
    }

    fn extend_exchange(&self, exchange: ExchangeId, until: SystemTime) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            sqlx::query("UPDATE oauth_exchanges SET expires_at = ? WHERE number = ?")
                .bind(seconds(until))
                .bind(exchange.0)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(())
        })
    }

    fn end_exchange(&self, exchange: ExchangeId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            sqlx::query("DELETE FROM oauth_exchanges WHERE number = ?")
                .bind(exchange.0)
                .execute(&mut *change)
                .await?;
            change.commit().await?;
            Ok(())
        })
    }

    fn end_refused(
        &self,
        user: UserId,
        version: Option<PairId>,
        owner: LeaseOwner,
        known: Option<ExchangeId>,
        now: SystemTime,
    ) -> BoxFuture<'_, Result<Judged, StoreError>> {
        Box::pin(async move {
            let refused = Refused {
                user,
                version,
                owner,
                known,
            };
            let mut reader = self.readers.acquire().await?;
            if let Some(spared) = refused.spared(&mut reader, now).await? {
                return Ok(spared);
            }
            drop(reader);
            let mut change = self.begin().await?;
            if let Some(spared) = refused.spared(&mut change, now).await? {
                return Ok(spared);
            }
            accounts::end(&mut change, user).await?;
            change.commit().await?;
            Ok(Judged::Ended)
        })
    }

    fn endings(&self, after: Option<i64>) -> BoxFuture<'_, Result<Endings, StoreError>> {
        Box::pin(async move {
            let Some(after) = after else {
                let upto = sqlx::query_scalar(
                    "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'oauth_endings'), 0)",
                )
                .fetch_one(&self.readers)
                .await?;
                return Ok(Endings {
                    upto,
                    ..Endings::default()
                });
            };
            let rows = sqlx::query(
                "SELECT number, grant_id, ended FROM oauth_endings WHERE number > ? ORDER BY number LIMIT ?",
            )
            .bind(after)
            .bind(ENDINGS_AT_ONCE)
            .fetch_all(&self.readers)
            .await?;
            let mut endings = Endings {
                upto: after,
                ..Endings::default()
            };
            for row in rows {
                let number: i64 = row.try_get("number")?;
                // They are numbered without gaps, and forgotten from the oldest on.
                endings.missed |= number > endings.upto + 1;
                endings.upto = number;
                endings.grants.push(EndedGrant {
                    grant: row.try_get("grant_id")?,
                    whole: row.try_get("ended")?,
                });
            }
            Ok(endings)
        })
    }
}

impl Refused {
    /// Why nothing is to end; `None` if nothing speaks against it.
    async fn spared(&self, connection: &mut SqliteConnection, now: SystemTime) -> Result<Option<Judged>, StoreError> {
        if let Some(account) = accounts::find(&mut *connection, self.user).await?
            && Some(account.version) != self.version
        {
            return Ok(Some(Judged::Replaced(Box::new(account))));
        }
        let elsewhere: bool = sqlx::query_scalar(HELD_BY_ANOTHER)
            .bind(self.user)
            .bind(self.owner)
            .bind(seconds(now))
            .fetch_one(&mut *connection)
            .await?;
        if elsewhere {
            return Ok(Some(Judged::Elsewhere));
        }
        let exchanging: Option<i64> =
            sqlx::query_scalar("SELECT max(number) FROM oauth_exchanges WHERE expires_at > ? AND number <= ?")
                .bind(seconds(now))
                .bind(self.known.map_or(i64::MAX, |known| known.0))
                .fetch_one(&mut *connection)
                .await?;
        Ok(exchanging.map(|number| Judged::Exchanging(self.known.unwrap_or(ExchangeId(number)))))
    }
}
