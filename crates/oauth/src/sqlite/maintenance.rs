//! The probe, and the purge of expired rows.

use std::time::{Duration, SystemTime};

use super::{SqliteStore, columns::seconds};
use crate::ports::{Store, StoreFuture};

/// The time for which a client without a grant is kept.
const IDLE_CLIENT_RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The time for which a client without any sign-in is kept: registering costs nothing.
const UNUSED_CLIENT_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The time for which a code is remembered after its expiry, so that its reuse is recognized.
const CODE_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The number of entries that the log of revocations keeps.
const REVOCATION_LOG_LENGTH: i64 = 10_000;

impl Store for SqliteStore {
    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let query = sqlx::query("SELECT 1 FROM oauth_grants LIMIT 1");
            Ok(query.fetch_optional(&self.readers).await.map(drop)?)
        })
    }

    fn purge(&self, now: SystemTime) -> StoreFuture<'_, ()> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            for (statement, before) in [
                ("DELETE FROM oauth_pending WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_access_tokens WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_refresh_tokens WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_assertions WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_exchanges WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_leases WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_codes WHERE expires_at <= ?", now - CODE_RETENTION),
                // A grant that no token and no code leads to any more, then an account without a
                // grant.
                (
                    "DELETE FROM oauth_grants AS g
                     WHERE NOT EXISTS (SELECT 1 FROM oauth_access_tokens AS a WHERE a.grant_id = g.grant_id)
                       AND NOT EXISTS (SELECT 1 FROM oauth_refresh_tokens AS r WHERE r.grant_id = g.grant_id)
                       AND NOT EXISTS (SELECT 1 FROM oauth_codes AS c
                                       WHERE c.grant_id = g.grant_id AND c.used = 0 AND c.expires_at > ?)",
                    now,
                ),
            ] {
                execute!(change, statement, seconds(before));
            }
            execute!(
                change,
                "DELETE FROM oauth_accounts WHERE user_id NOT IN (SELECT user_id FROM oauth_grants)"
            );
            execute!(
                change,
                "DELETE FROM oauth_clients
                 WHERE (last_used_at <= ?1 OR (last_used_at <= ?2 AND last_used_at = created_at))
                   AND client_id NOT IN (SELECT client_id FROM oauth_grants)",
                seconds(now - IDLE_CLIENT_RETENTION),
                seconds(now - UNUSED_CLIENT_RETENTION)
            );
            execute!(
                change,
                "DELETE FROM oauth_endings
                 WHERE number <= (SELECT seq FROM sqlite_sequence WHERE name = 'oauth_endings') - ?",
                REVOCATION_LOG_LENGTH
            );
            Ok(change.commit().await?)
        })
    }
}
