//! The usual store: SQLite, embedded, in one file.
//!
//! **One connection writes, the others read.** SQLite has one writer at a time anyway: writers
//! queue for the one connection in order of arrival, and never see `SQLITE_BUSY`. A reader never
//! waits for a writer, since in a write-ahead log it sees the state at its beginning. Connections
//! that read refuse to write.
//!
//! Every change is one transaction that takes the write lock at its beginning, so that what it has
//! read is still true when it writes. It is **on disk when it returns**: `synchronous = FULL`
//! flushes the log at each commit. With `NORMAL` a commit would outlive the process, but not a loss
//! of power, and the loss would cost more than the millisecond: upstream tokens whose predecessors
//! are invalid, a refresh token that its client already uses, a revocation.
//!
//! The migrations are in the binary and have a table of their own, so that other users of the
//! connections can keep their own tables in the file.

/// Executes a statement with its arguments in a change. Evaluates to the number of rows that it
/// affected.
macro_rules! execute {
    ($change:expr, $sql:expr $(, $argument:expr)*) => {{
        let connection: &mut sqlx::SqliteConnection = &mut *$change;
        sqlx::query($sql)$(.bind($argument))*.execute(connection).await?.rows_affected()
    }};
}

/// Makes columns of types that wrap one value. sqlx can derive that: see [`migrator`].
macro_rules! stored_as_inner_value {
    ($($name:ident($inner:ty)),+ $(,)?) => {$(
        impl sqlx::Type<sqlx::Sqlite> for $name {
            fn type_info() -> sqlx::sqlite::SqliteTypeInfo {
                <$inner as sqlx::Type<sqlx::Sqlite>>::type_info()
            }

            fn compatible(found: &sqlx::sqlite::SqliteTypeInfo) -> bool {
                <$inner as sqlx::Type<sqlx::Sqlite>>::compatible(found)
            }
        }

        impl sqlx::Encode<'_, sqlx::Sqlite> for $name {
            fn encode_by_ref(
                &self,
                buffer: &mut sqlx::sqlite::SqliteArgumentsBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                sqlx::Encode::<sqlx::Sqlite>::encode_by_ref(&self.0, buffer)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Sqlite> for $name {
            fn decode(value: sqlx::sqlite::SqliteValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                sqlx::Decode::<sqlx::Sqlite>::decode(value).map(Self)
            }
        }
    )+};
}

mod accounts;
mod clients;
mod columns;
mod grants;
mod maintenance;
mod pending;
mod process_lock;
mod revocation;
mod tokens;
mod write_probe;

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Connection as _, SqlSafeStr as _, Sqlite, SqlitePool, Transaction,
    error::DatabaseError,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

pub use self::write_probe::{WriteProbe, WriteProbeError};
use crate::ports::StoreError;
use process_lock::DatabaseLock;

/// A store in a SQLite database.
#[derive(Clone, Debug)]
pub struct SqliteStore {
    /// Has one connection: its holder is the only writer of this process.
    writer: SqlitePool,
    readers: SqlitePool,
    /// `None` in a store on pools from outside.
    lock: Option<Arc<DatabaseLock>>,
    found_others: bool,
}

/// The reason why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The file cannot be created or opened.
    #[error("cannot open database file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The database cannot be used.
    #[error("cannot open the database")]
    Database(#[source] sqlx::Error),
    /// A newer version of this program has used the database. Nothing was changed.
    #[error(
        "the database was written by version {written_by}, and this is {VERSION}: use that version, or a newer one"
    )]
    Newer {
        /// The newest version that has used the database.
        written_by: String,
    },
    /// The tables cannot be migrated: the database is damaged.
    #[error("cannot migrate the database: it is damaged")]
    Migration(#[source] MigrateError),
}

type Change = Transaction<'static, Sqlite>;
type Query = sqlx::query::Query<'static, Sqlite, <Sqlite as sqlx::Database>::Arguments>;

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The number of connections that read.
const READERS: u32 = 4;
/// The longest wait of a writer for one in another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);

/// The migrations, as version, description and SQL: a file of `migrations` each.
const MIGRATIONS: [(i64, &str, &str); 10] = [
    (1, "oauth", include_str!("../migrations/0001_oauth.sql")),
    (10, "clients", include_str!("../migrations/0010_clients.sql")),
    (
        20,
        "scope and purpose",
        include_str!("../migrations/0020_scope_and_purpose.sql"),
    ),
    (
        21,
        "refresh families",
        include_str!("../migrations/0021_refresh_families.sql"),
    ),
    (30, "processes", include_str!("../migrations/0030_processes.sql")),
    (
        40,
        "application type",
        include_str!("../migrations/0040_application_type.sql"),
    ),
    (
        41,
        "pending browser",
        include_str!("../migrations/0041_pending_browser.sql"),
    ),
    (50, "key checks", include_str!("../migrations/0050_key_checks.sql")),
    (51, "expiry", include_str!("../migrations/0051_expiry.sql")),
    (
        52,
        "refresh issued",
        include_str!("../migrations/0052_refresh_issued.sql"),
    ),
];

impl SqliteStore {
    /// Opens a database, creates it if it does not exist (for its owner alone), and migrates its
    /// tables. Several processes may have it open. If no other process has, the leases and
    /// exchanges of dead processes are deleted.
    ///
    /// # Errors
    ///
    /// Any [`OpenStoreError`].
    pub async fn open(path: impl AsRef<Path>) -> Result<Self, OpenStoreError> {
        let path = path.as_ref();
        let file_error = |source| OpenStoreError::File {
            path: path.to_owned(),
            source,
        };
        // SQLite would make the file readable for all; its companions get the mode of the file.
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(file_error)?;
        let database = path.to_owned();
        let lock = tokio::task::spawn_blocking(move || DatabaseLock::acquire(&database)).await;
        let (lock, alone) = lock.unwrap_or_else(|error| Err(error.into())).map_err(file_error)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writing = options
            .clone()
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        // First, since it gives the file a write-ahead log.
        let writer = pool(1, writing).await?;
        let readers = pool(READERS, options.pragma("query_only", "ON")).await?;
        let mut store = Self::from_pools(writer, readers).await?;
        if alone {
            let deleted = sqlx::raw_sql("DELETE FROM oauth_leases; DELETE FROM oauth_exchanges");
            deleted.execute(&store.writer).await.map_err(OpenStoreError::Database)?;
        }
        store.found_others = !alone;
        let lock = tokio::task::spawn_blocking(|| lock.downgrade()).await;
        store.lock = lock.ok().map(Arc::new);
        Ok(store)
    }

    /// Uses existing pools on one database, and migrates the tables. `writer` must have one
    /// connection at most, or writers fail as busy, and must have foreign keys switched on, which
    /// is sqlx's default.
    ///
    /// # Errors
    ///
    /// [`OpenStoreError::Migration`].
    pub async fn from_pools(writer: SqlitePool, readers: SqlitePool) -> Result<Self, OpenStoreError> {
        let mut migrations = migrator();
        migrations.dangerous_set_table_name("_oauth_migrations");
        // One transaction, under the write lock from its beginning: of processes that start at
        // once, one migrates.
        let migrated = async {
            let mut change = writer.begin_with("BEGIN IMMEDIATE").await?;
            // As `run` does; the future of `run` is not `Send` for every lifetime.
            migrations.run_direct(None, &mut *change, false).await?;
            sqlx::query(
                "INSERT INTO oauth_program (id, version) VALUES (1, ?) ON CONFLICT DO UPDATE SET version = excluded.version",
            )
            .bind(VERSION)
            .execute(&mut *change)
            .await?;
            Ok(change.commit().await?)
        };
        match migrated.await {
            Ok(()) => {}
            Err(MigrateError::VersionMissing(_)) => {
                let newest = sqlx::query_scalar("SELECT version FROM oauth_program")
                    .fetch_one(&readers)
                    .await;
                return Err(OpenStoreError::Newer {
                    written_by: newest.unwrap_or_else(|_| "an unknown version".to_owned()),
                });
            }
            Err(error) => return Err(OpenStoreError::Migration(error)),
        }
        Ok(Self {
            writer,
            readers,
            lock: None,
            found_others: false,
        })
    }

    /// Reports whether other processes may have had the database open when [`SqliteStore::open`]
    /// opened it. On a file system without locks it always reports so.
    #[must_use]
    pub fn found_others(&self) -> bool {
        self.found_others
    }

    /// The connection that writes, for others who keep their own tables in the file.
    pub fn writer(&self) -> &SqlitePool {
        &self.writer
    }

    /// The connections that read.
    pub fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Closes the database after all running operations have ended.
    pub async fn close(&self) {
        self.readers.close().await;
        // Last: it moves the log into the file.
        self.writer.close().await;
        if let Some(lock) = &self.lock {
            lock.release();
        }
    }

    /// Begins a change. Dropping it undoes it.
    async fn begin(&self) -> Result<Change, StoreError> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            Err(sqlx::Error::Database(error)) if !is_busy(&*error) => {
                tracing::warn!(%error, "the database cannot begin a change: opening it again");
                if let Ok(connection) = self.writer.acquire().await {
                    let _ = connection.close().await;
                }
                Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
            }
            begun => Ok(begun?),
        }
    }

    /// Makes a change of one statement. Returns the number of rows that it affected.
    async fn execute(&self, query: Query) -> Result<u64, StoreError> {
        let mut change = self.begin().await?;
        let done = query.execute(&mut *change).await?;
        change.commit().await?;
        Ok(done.rows_affected())
    }
}

/// Another process is writing.
fn is_busy(error: &dyn DatabaseError) -> bool {
    const BUSY: i32 = 5;
    // The low byte is the primary code (SQLite, "Result and Error Codes").
    let code = error.code().and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == BUSY)
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

async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, OpenStoreError> {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // SQLite undoes a transaction by itself after some errors (full disk, failed input or
        // output), which sqlx does not notice: such a connection can begin no other one.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
        .connect_with(options)
        .await
        .map_err(OpenStoreError::Database)
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
