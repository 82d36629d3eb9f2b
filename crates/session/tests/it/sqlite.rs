//! The usual store of session records.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use session::{
    ports::{BoxError, Change, GrantId, Record, RecordKey, Records, RecordsError, Seal, Snapshot, UserId},
    sqlite::SqliteRecords,
};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// Shows what it was bound to: enough to see that the store keeps nothing in the clear and mixes nothing up.
#[derive(Debug)]
struct Reversed;

impl Seal for Reversed {
    fn seal(&self, key: RecordKey, plain: &[u8]) -> Vec<u8> {
        key.0.iter().chain(plain.iter().rev()).copied().collect()
    }

    fn open(&self, key: RecordKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        let (of, plain) = sealed.split_at_checked(32).ok_or("too short")?;
        if of == key.0 {
            Ok(plain.iter().rev().copied().collect())
        } else {
            Err("another record's".into())
        }
    }
}

async fn pool(directory: &TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(directory.path().join("sessions.db"))
        .create_if_missing(true);
    SqlitePool::connect_with(options).await.expect("a database")
}

async fn records(pool: &SqlitePool) -> SqliteRecords {
    SqliteRecords::from_pool(pool.clone(), Arc::new(Reversed))
        .await
        .expect("tables")
}

fn record(key: u8, seconds: u64) -> Record {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Record {
        key: RecordKey([key; 32]),
        grant: GrantId("a grant".into()),
        user: UserId("42".into()),
        opened: time(1),
        last_activity: time(seconds),
    }
}

fn snapshot(text: &'static str) -> Snapshot {
    Snapshot(text.into())
}

#[tokio::test]
async fn records_are_there_after_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let first = pool(&directory).await;
    let changes = vec![
        Change::Save(record(1, 10), snapshot("handshake of one")),
        Change::Save(record(2, 20), snapshot("handshake of two")),
        Change::Save(record(3, 30), snapshot("three")),
    ];
    records(&first).await.apply(changes).await.expect("written");
    let changes = vec![
        Change::Touch(RecordKey([1; 32]), record(1, 99).last_activity),
        Change::Save(record(2, 25), snapshot("two again")),
        Change::Remove(RecordKey([3; 32])),
        Change::Remove(RecordKey([9; 32])),
    ];
    // Twice: a batch may be tried again.
    for _ in 0..2 {
        records(&first).await.apply(changes.clone()).await.expect("written");
    }
    first.close().await;

    let second = pool(&directory).await;
    let again = records(&second).await;
    let mut all = again.all().await.expect("records");
    all.sort_by_key(|record| record.key);
    assert_eq!(all, [record(1, 99), record(2, 25)]);
    for (key, expected) in [(1, Some("handshake of one")), (2, Some("two again")), (3, None)] {
        let found = again.snapshot(RecordKey([key; 32])).await.expect("readable");
        assert_eq!(found, expected.map(snapshot));
    }
    second.close().await;
    let file = std::fs::read(directory.path().join("sessions.db")).expect("the file");
    assert!(
        !file.windows(9).any(|window| window == b"handshake"),
        "a snapshot is in the clear"
    );
}

#[tokio::test]
async fn what_was_sealed_for_another_record_is_damaged() {
    let directory = TempDir::new().expect("a directory");
    let pool = pool(&directory).await;
    let store = records(&pool).await;
    let changes = vec![
        Change::Save(record(1, 10), snapshot("one")),
        Change::Save(record(2, 20), snapshot("two")),
    ];
    store.apply(changes).await.expect("written");
    sqlx::query(
        "UPDATE session_records SET snapshot = (SELECT snapshot FROM session_records WHERE last_activity = 10000)",
    )
    .execute(&pool)
    .await
    .expect("changed");
    assert_eq!(
        store.snapshot(RecordKey([1; 32])).await.expect("readable"),
        Some(snapshot("one"))
    );
    let damaged = store.snapshot(RecordKey([2; 32])).await;
    assert!(matches!(damaged, Err(RecordsError::Damaged(_))), "{damaged:?}");
}
