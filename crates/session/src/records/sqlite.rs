//! Session records in SQLite, through a pool that writes and one that reads.
//!
//! A batch of changes is one transaction. The migrations are in the binary and have a table of
//! their own, so that the database can be shared with other users that have their own tables. The
//! creator of the pools sets the durability of a write.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::{
    Row as _, SqlSafeStr as _, SqliteConnection, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::SqliteRow,
};

use crate::ports::{
    BoxFuture, Change, GrantId, LastInitialize, Record, Records, RecordsError, RevokedSubject, Seal, SessionKey,
    Snapshot, UserId,
};

/// Session records in a SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteRecords {
    writer: SqlitePool,
    readers: SqlitePool,
    seal: Arc<dyn Seal>,
    shared: bool,
}

/// The difference that two readings of one moment may have.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

/// The migrations, as version, description and SQL: a file of `migrations` each.
const MIGRATIONS: [(i64, &str, &str); 3] = [
    (1, "session", include_str!("../../migrations/0001_session.sql")),
    (2, "endings", include_str!("../../migrations/0002_endings.sql")),
    (
        3,
        "implicit sessions",
        include_str!("../../migrations/0003_implicit_sessions.sql"),
    ),
];

/// The tables cannot be migrated: the database is newer than this program, or damaged.
#[derive(Debug, thiserror::Error)]
#[error("session tables cannot be migrated")]
pub struct MigrationError(#[source] sqlx::migrate::MigrateError);

impl SqliteRecords {
    /// Uses one pool to write and another to read (they may be the same), and migrates the tables.
    ///
    /// # Errors
    ///
    /// [`MigrationError`].
    pub async fn from_pools(
        writer: SqlitePool,
        readers: SqlitePool,
        seal: Arc<dyn Seal>,
    ) -> Result<Self, MigrationError> {
        let mut migrations = migrator();
        migrations.dangerous_set_table_name("_session_migrations");
        // One transaction, under the write lock from its beginning: of processes that start
        // together one migrates.
        let migrated = async {
            let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await?;
            // Not `run`, whose future is not `Send` for every lifetime.
            migrations.run_direct(None, &mut *transaction, false).await?;
            Ok(transaction.commit().await?)
        };
        migrated.await.map_err(MigrationError)?;
        Ok(Self {
            writer,
            readers,
            seal,
            shared: false,
        })
    }

    /// Notes that other processes may be using these records now ([`Records::is_shared`]).
    #[must_use]
    pub fn shared_with_other_processes(self) -> Self {
        Self { shared: true, ..self }
    }

    fn unseal(&self, key: SessionKey, sealed: &[u8]) -> Result<Snapshot, RecordsError> {
        let plain = self.seal.open(key, sealed).map_err(RecordsError::Damaged)?;
        Ok(Snapshot(plain.into()))
    }

    async fn write(&self, changes: Vec<Change>) -> Result<(), sqlx::Error> {
        // The write lock at the beginning: a transaction that requests it later may be refused.
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for change in changes {
            match change {
                Change::Open(record, snapshot) => {
                    let sealed = self.seal.seal(record.key, &snapshot.0);
                    save(&mut transaction, &record, &sealed).await?;
                    note_initialize(&mut transaction, &record, &sealed).await?;
                }
                Change::Save(record, snapshot) => {
                    let sealed = self.seal.seal(record.key, &snapshot.0);
                    save(&mut transaction, &record, &sealed).await?;
                }
                Change::Touch(key, last_activity) => {
                    sqlx::query("UPDATE session_records SET last_activity = max(last_activity, ?) WHERE key_hash = ?")
                        .bind(milliseconds(last_activity))
                        .bind(key.0.to_vec())
                        .execute(&mut *transaction)
                        .await?;
                }
                Change::End(key, ended_at) => end(&mut transaction, key, ended_at).await?,
                Change::ExpireIfUnused { key, at, last_activity } => {
                    if !used_since(&mut transaction, key, last_activity).await? {
                        end(&mut transaction, key, at).await?;
                    }
                }
                Change::Forget { key, last_activity } => {
                    let used = match last_activity {
                        Some(last_activity) => used_since(&mut transaction, key, last_activity).await?,
                        None => false,
                    };
                    if !used {
                        remove(&mut transaction, key).await?;
                    }
                }
                Change::Revoke(subject, at) => {
                    let (statement, subject) = match &subject {
                        RevokedSubject::Grant(grant) => (
                            "DELETE FROM session_initializes WHERE grant_id = ? AND opened_at <= ?",
                            &grant.0,
                        ),
                        RevokedSubject::User(user) => (
                            "DELETE FROM session_initializes WHERE user_id = ? AND opened_at <= ?",
                            &user.0,
                        ),
                    };
                    sqlx::query(statement)
                        .bind(subject.to_string())
                        .bind(milliseconds(at))
                        .execute(&mut *transaction)
                        .await?;
                }
            }
        }
        transaction.commit().await
    }
}

impl Records for SqliteRecords {
    fn all(&self) -> BoxFuture<'_, Result<Vec<Record>, RecordsError>> {
        Box::pin(async {
            let rows = sqlx::query(
                "SELECT key_hash, grant_id, user_id, opened_at, last_activity, implicit FROM session_records",
            )
            .fetch_all(&self.readers)
            .await?;
            rows.iter().map(record).collect()
        })
    }

    fn snapshot(&self, key: SessionKey) -> BoxFuture<'_, Result<Option<Snapshot>, RecordsError>> {
        Box::pin(async move {
            let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT snapshot FROM session_records WHERE key_hash = ?")
                .bind(key.0.to_vec())
                .fetch_optional(&self.readers)
                .await?;
            sealed.map(|sealed| self.unseal(key, &sealed)).transpose()
        })
    }

    fn last_initialize<'a>(
        &'a self,
        grant: &'a GrantId,
    ) -> BoxFuture<'a, Result<Option<LastInitialize>, RecordsError>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT key_hash, snapshot FROM session_initializes WHERE grant_id = ?")
                .bind(grant.0.to_string())
                .fetch_optional(&self.readers)
                .await?;
            let Some(row) = row else { return Ok(None) };
            let (key, sealed): (_, Vec<u8>) = (key(&row)?, row.try_get("snapshot")?);
            let snapshot = self.unseal(key, &sealed)?;
            Ok(Some(LastInitialize { key, snapshot }))
        })
    }

    fn forget_initializes(&self, before: SystemTime) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            sqlx::query(
                "DELETE FROM session_initializes WHERE opened_at < ?
                 AND NOT EXISTS (SELECT 1 FROM session_records AS r WHERE r.key_hash = session_initializes.key_hash)",
            )
            .bind(milliseconds(before))
            .execute(&self.writer)
            .await?;
            Ok(())
        })
    }

    fn ended(&self, limit: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT key_hash FROM session_endings ORDER BY ended_at DESC, key_hash LIMIT ?")
                .bind(count(limit))
                .fetch_all(&self.readers)
                .await?;
            rows.iter().rev().map(key).collect()
        })
    }

    fn forget_ended(&self, before: SystemTime, limit: usize) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async move {
            sqlx::query(
                "DELETE FROM session_endings WHERE ended_at < ?1 OR key_hash IN
                 (SELECT key_hash FROM session_endings ORDER BY ended_at DESC, key_hash LIMIT -1 OFFSET ?2)",
            )
            .bind(milliseconds(before))
            .bind(count(limit))
            .execute(&self.writer)
            .await?;
            Ok(())
        })
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), RecordsError>> {
        Box::pin(async { Ok(self.write(changes).await?) })
    }
}

impl From<sqlx::Error> for RecordsError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            Self::Damaged(Box::new(error))
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}

async fn save(connection: &mut SqliteConnection, record: &Record, sealed: &[u8]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO session_records (key_hash, grant_id, user_id, opened_at, last_activity, snapshot, implicit)
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7
         WHERE NOT EXISTS (SELECT 1 FROM session_endings WHERE key_hash = ?1)
         ON CONFLICT (key_hash) DO UPDATE SET
             last_activity = max(last_activity, excluded.last_activity), snapshot = excluded.snapshot",
    )
    .bind(record.key.0.to_vec())
    .bind(record.grant.0.to_string())
    .bind(record.user.0.to_string())
    .bind(milliseconds(record.opened))
    .bind(milliseconds(record.last_activity))
    .bind(sealed)
    .bind(record.implicit)
    .execute(connection)
    .await?;
    Ok(())
}

async fn note_initialize(connection: &mut SqliteConnection, record: &Record, sealed: &[u8]) -> Result<(), sqlx::Error> {
    // The session may have ended with its grant by now.
    sqlx::query(
        "INSERT OR REPLACE INTO session_initializes (grant_id, user_id, key_hash, opened_at, snapshot)
         SELECT ?1, ?2, ?3, ?4, ?5
         WHERE NOT EXISTS (SELECT 1 FROM session_endings WHERE key_hash = ?3)",
    )
    .bind(record.grant.0.to_string())
    .bind(record.user.0.to_string())
    .bind(record.key.0.to_vec())
    .bind(milliseconds(record.opened))
    .bind(sealed)
    .execute(connection)
    .await?;
    Ok(())
}

/// True if another registry has used the session after `last_activity`.
async fn used_since(
    connection: &mut SqliteConnection,
    key: SessionKey,
    last_activity: SystemTime,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM session_records WHERE key_hash = ? AND last_activity > ?)")
        .bind(key.0.to_vec())
        .bind(milliseconds(last_activity + CLOCK_SKEW))
        .fetch_one(connection)
        .await
}

async fn remove(connection: &mut SqliteConnection, key: SessionKey) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM session_records WHERE key_hash = ?")
        .bind(key.0.to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

async fn end(connection: &mut SqliteConnection, key: SessionKey, at: SystemTime) -> Result<(), sqlx::Error> {
    remove(connection, key).await?;
    sqlx::query("INSERT INTO session_endings (key_hash, ended_at) VALUES (?, ?) ON CONFLICT DO NOTHING")
        .bind(key.0.to_vec())
        .bind(milliseconds(at))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

fn record(row: &SqliteRow) -> Result<Record, RecordsError> {
    let (grant, user): (String, String) = (row.try_get("grant_id")?, row.try_get("user_id")?);
    Ok(Record {
        key: key(row)?,
        grant: GrantId(grant.into()),
        user: UserId(user.into()),
        opened: time(row.try_get("opened_at")?),
        last_activity: time(row.try_get("last_activity")?),
        implicit: row.try_get("implicit")?,
    })
}

fn key(row: &SqliteRow) -> Result<SessionKey, RecordsError> {
    let key: Vec<u8> = row.try_get("key_hash")?;
    let key = key
        .try_into()
        .map_err(|_| RecordsError::Damaged("a key hash does not have 32 bytes".into()))?;
    Ok(SessionKey(key))
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}

/// A time as it is stored. Times before 1970 are 1970: nothing is that old.
fn milliseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A stored time.
fn time(milliseconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(milliseconds).unwrap_or_default())
}

/// sqlx has a macro for this, but its macros compile sqlx and SQLite a second time, for the
/// compiler to run.
fn migrator() -> Migrator {
    let migration = |(version, description, sql): (i64, &'static str, &'static str)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    };
    Migrator::with_migrations(MIGRATIONS.map(migration).into())
}

#[cfg(test)]
mod tests {
    use super::MIGRATIONS;

    #[test]
    fn every_migration_file_is_in_the_binary() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
        let mut files: Vec<String> = files
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let names =
            MIGRATIONS.map(|(version, description, _)| format!("{version:04}_{}.sql", description.replace(' ', "_")));
        assert_eq!(files, names);
    }
}
