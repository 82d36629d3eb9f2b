//! The database of a broker, read and aged by a test.

use std::{path::Path, time::Duration};

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{sleep, timeout};

use crate::harness::WAIT_LIMIT;

/// Seconds since 1970 from 2017 to 2096: no other number of the schema is as large.
const SECONDS: &str = "1500000000 AND 4000000000";
/// The same in milliseconds.
const MILLISECONDS: &str = "1500000000000 AND 4000000000000";

/// The database at a path.
pub(super) struct Database(SqliteConnectOptions);

impl Database {
    pub(super) fn at(path: &Path) -> Self {
        Self(SqliteConnectOptions::new().filename(path))
    }

    /// The number of records of sessions, and the bytes of their snapshots.
    pub(super) async fn records(&self) -> (i64, i64) {
        let mut connection = self.connect().await;
        let records = "SELECT count(*), coalesce(sum(length(snapshot)), 0) FROM session_records";
        let row = sqlx::query(records).fetch_one(&mut connection).await.unwrap();
        (row.get(0), row.get(1))
    }

    /// Waits for another record, or one that has grown: records are written behind.
    pub(super) async fn wait_for_more_than(&self, before: (i64, i64)) -> (i64, i64) {
        let wait = async {
            loop {
                let now = self.records().await;
                if now > before {
                    return now;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(WAIT_LIMIT, wait).await.expect("the record is written")
    }

    /// Puts everything into the one file. No process may have the database open.
    pub(super) async fn into_one_file(self) {
        let mut connection = SqliteConnection::connect_with(&self.0).await.unwrap();
        for statement in ["PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode = DELETE"] {
            sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        }
        connection.close().await.unwrap();
    }

    /// Adds so many seconds to all times. A column counts by its values, whatever its name, so that
    /// this fits later schemas too.
    pub(super) async fn shift_times(self, seconds: i64) {
        let mut connection = self.connect().await;
        let columns = "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
             WHERE t.type = 'table' AND t.name NOT LIKE '\\_%' ESCAPE '\\' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
               AND c.type = 'INTEGER'";
        let columns = sqlx::query(columns).fetch_all(&mut connection).await.unwrap();
        let mut shifted = 0;
        for column in columns {
            let (table, column): (String, String) = (column.get(0), column.get(1));
            for (range, shift) in [(SECONDS, seconds), (MILLISECONDS, seconds * 1000)] {
                let update = format!("UPDATE {table} SET {column} = {column} + {shift} WHERE {column} BETWEEN {range}");
                let done = sqlx::raw_sql(sqlx::AssertSqlSafe(update))
                    .execute(&mut connection)
                    .await;
                shifted += done.unwrap().rows_affected();
            }
        }
        assert!(shifted > 0, "the fixture has times");
        connection.close().await.unwrap();
    }

    async fn connect(&self) -> SqliteConnection {
        SqliteConnection::connect_with(&self.0).await.unwrap()
    }
}
