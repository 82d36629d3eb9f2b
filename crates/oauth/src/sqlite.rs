//! The usual store: SQLite, embedded, in one file.
//!
//! **One connection writes, the others read.** SQLite has one writer at a time anyway: here they stand in line for the one
//! connection, first come, first served, and never meet as `SQLITE_BUSY`, and a reader never waits for any of them, since
//! in a write-ahead log it sees what was there when it began. Connections that read refuse to write.
//!
//! Every change is one transaction that takes the write lock at its beginning, so that what it has read is still true
//! when it writes. It is **on disk when it returns**: `synchronous = FULL` flushes the log at each commit. With `NORMAL` a
//! commit would outlive the process, but not a loss of power, and what is lost then is worth more than the millisecond: a
//! pair of upstream tokens whose predecessors are dead, a refresh token that its client has already put in the place of
//! the one before, a revocation.
//!
//! The migrations are in the binary and have a table of their own, so that the connections can be shared with others who
//! keep their own tables in the file.

mod accounts;
mod clients;
mod company;
mod grants;
mod pending;
mod processes;
mod tokens;

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use sqlx::{
    Sqlite, SqlitePool, Transaction,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    ports::{BoxFuture, Store, StoreError},
    records::TokenHash,
};
use company::Company;

/// A store in a SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// Has one connection: whoever has it is the only writer of this process.
    writer: SqlitePool,
    readers: SqlitePool,
    /// `None` in a store on somebody else's pools.
    company: Option<Arc<Company>>,
    /// Whether others may have had the database open when it was opened here.
    found_others: bool,
}

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The file cannot be made or opened.
    #[error("the database file {} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Database(#[source] sqlx::Error),
    /// The tables cannot be brought up to date: it is newer than this program, or damaged.
    #[error("the tables of the database cannot be brought up to date")]
    Migration(#[source] sqlx::migrate::MigrateError),
}

/// How many connections read.
const READERS: u32 = 4;
/// How long a writer waits for one in another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long anyone waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client is kept that has no grant.
const IDLE_CLIENT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// How long a client is kept that nobody has ever signed in with: registering costs nothing.
const UNUSED_CLIENT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a code is remembered after its expiry, so that its replay is recognised.
const USED_CODE: Duration = Duration::from_secs(24 * 60 * 60);

impl SqliteStore {
    /// Opens a database, makes it if it is not there (for its owner alone), and brings its tables up to date. Several
    /// processes may have it open; where this is the only one, what others have left behind when they died is cleared away.
    ///
    /// # Errors
    ///
    /// Any [`OpenStoreError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        let path = path.as_ref();
        // SQLite would make the file readable for all; its companions get the mode of the file.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| OpenStoreError::File {
                path: path.to_owned(),
                source,
            })?;
        let beside = path.to_owned();
        let entered = tokio::task::spawn_blocking(move || Company::enter(&beside)).await;
        let (company, alone) =
            entered
                .unwrap_or_else(|error| Err(error.into()))
                .map_err(|source| OpenStoreError::File {
                    path: path.to_owned(),
                    source,
                })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        // First, since it makes the file one with a write-ahead log.
        let writer = pool(1, writing).await?;
        let readers = pool(READERS, options.pragma("query_only", "ON")).await?;
        let mut store = Self::from_pools(writer, readers).await?;
        if alone {
            store.clear_away().await.map_err(OpenStoreError::Database)?;
        }
        store.found_others = !alone;
        let settled = tokio::task::spawn_blocking(|| company.settle()).await;
        store.company = settled.ok().map(Arc::new);
        Ok(store)
    }

    /// Uses pools that are there already, on one database, and brings the tables up to date. `writer` must have one
    /// connection at most, or its users get in each other's way, with foreign keys switched on, which is sqlx's default.
    ///
    /// # Errors
    ///
    /// [`OpenStoreError::Migration`].
    pub async fn from_pools(writer: SqlitePool, readers: SqlitePool) -> Result<Self, OpenStoreError> {
        let mut migrations = sqlx::migrate!("./migrations");
        migrations.dangerous_set_table_name("_oauth_migrations");
        // One change, under the write lock from its beginning: of those who start at once one does it, and the others find it done.
        let migrated = async {
            let mut change = writer.begin_with("BEGIN IMMEDIATE").await?;
            // What `run` would do; the future of that is not `Send` for every lifetime.
            migrations.run_direct(None, &mut *change, false).await?;
            Ok(change.commit().await?)
        };
        migrated.await.map_err(OpenStoreError::Migration)?;
        Ok(Self {
            writer,
            readers,
            company: None,
            found_others: false,
        })
    }

    /// Whether other processes may have had the database open when [`SqliteStore::open`] came to it. Where the file system has no
    /// locks it always may be so.
    #[must_use]
    pub fn found_others(&self) -> bool {
        self.found_others
    }

    /// The connection that writes, for others who keep their own tables in the same file.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// The connections that read.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Closes the database once all that is under way has ended.
    pub async fn close(&self) {
        self.readers.close().await;
        // Last: it puts what is in the log into the file.
        self.writer.close().await;
        if let Some(company) = &self.company {
            company.leave();
        }
    }

    /// Forgets what processes that are dead have left behind: all that there are.
    async fn clear_away(&self) -> Result<(), sqlx::Error> {
        let mut change = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        for statement in ["DELETE FROM oauth_leases", "DELETE FROM oauth_exchanges"] {
            sqlx::query(statement).execute(&mut *change).await?;
        }
        change.commit().await
    }

    /// Begins a change. Dropping the transaction undoes it.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

impl Store for SqliteStore {
    fn probe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            sqlx::query("SELECT 1 FROM oauth_grants LIMIT 1")
                .fetch_optional(&self.readers)
                .await?;
            Ok(())
        })
    }

    fn purge(&self, now: SystemTime) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut change = self.begin().await?;
            for (statement, before) in [
                ("DELETE FROM oauth_pending WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_access_tokens WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_refresh_tokens WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_assertions WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_exchanges WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_leases WHERE expires_at <= ?", now),
                ("DELETE FROM oauth_codes WHERE expires_at <= ?", now - USED_CODE),
            ] {
                sqlx::query(statement)
                    .bind(seconds(before))
                    .execute(&mut *change)
                    .await?;
            }
            // A grant that nothing can use any more, an account without a grant, a client without one.
            sqlx::query(
                "DELETE FROM oauth_grants AS g
                 WHERE NOT EXISTS (SELECT 1 FROM oauth_access_tokens AS a WHERE a.grant_id = g.grant_id)
                   AND NOT EXISTS (SELECT 1 FROM oauth_refresh_tokens AS r WHERE r.grant_id = g.grant_id)
                   AND NOT EXISTS (SELECT 1 FROM oauth_codes AS c
                                   WHERE c.grant_id = g.grant_id AND c.used = 0 AND c.expires_at > ?)",
            )
            .bind(seconds(now))
            .execute(&mut *change)
            .await?;
            sqlx::query("DELETE FROM oauth_accounts WHERE user_id NOT IN (SELECT user_id FROM oauth_grants)")
                .execute(&mut *change)
                .await?;
            sqlx::query(
                "DELETE FROM oauth_clients
                 WHERE (last_used_at <= ?1 OR (last_used_at <= ?2 AND last_used_at = created_at))
                   AND client_id NOT IN (SELECT client_id FROM oauth_grants)",
            )
            .bind(seconds(now - IDLE_CLIENT))
            .bind(seconds(now - UNUSED_CLIENT))
            .execute(&mut *change)
            .await?;
            sqlx::query(
                "DELETE FROM oauth_endings
                 WHERE number <= (SELECT seq FROM sqlite_sequence WHERE name = 'oauth_endings') - ?",
            )
            .bind(processes::ENDINGS)
            .execute(&mut *change)
            .await?;
            change.commit().await?;
            Ok(())
        })
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            Self::Damaged(Box::new(error))
        } else {
            Self::Unavailable(Box::new(error))
        }
    }
}

async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, OpenStoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(OpenStoreError::Database)
}

/// A time as it is stored. Times before 1970 are 1970: nothing is that old.
fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// A stored time.
fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// A stored hash.
fn token_hash(bytes: &[u8]) -> Result<TokenHash, StoreError> {
    let bytes = bytes.try_into().map_err(|_| damaged("a hash does not have 32 bytes"))?;
    Ok(TokenHash(bytes))
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged(what.into())
}
