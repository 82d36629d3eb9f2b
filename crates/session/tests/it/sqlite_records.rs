//! Session records in SQLite.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use session::{
    ports::{
        BoxError, Change, GrantId, Record, Records, RecordsError, RevokedSubject, Seal, SessionKey, Snapshot, UserId,
    },
    sqlite::SqliteRecords,
};
use sqlx::{SqlitePool, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// A seal that is readable in a test: the key, and the text in reverse.
#[derive(Debug)]
struct Reversed;

impl Seal for Reversed {
    fn seal(&self, key: SessionKey, plain: &[u8]) -> Vec<u8> {
        key.0.iter().chain(plain.iter().rev()).copied().collect()
    }

    fn open(&self, key: SessionKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError> {
        let (sealed_key, plain) = sealed.split_at_checked(32).ok_or("too short")?;
        if sealed_key == key.0 {
            Ok(plain.iter().rev().copied().collect())
        } else {
            Err("sealed for another record".into())
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
    SqliteRecords::from_pools(pool.clone(), pool.clone(), Arc::new(Reversed))
        .await
        .expect("tables")
}

fn record(key: u8, seconds: u64) -> Record {
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    Record {
        key: SessionKey([key; 32]),
        grant: GrantId("a grant".into()),
        user: UserId("42".into()),
        opened: time(1),
        last_activity: time(seconds),
        implicit: false,
    }
}

fn snapshot(text: &'static str) -> Snapshot {
    Snapshot(text.into())
}

#[tokio::test]
async fn records_survive_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let first = pool(&directory).await;
    let changes = vec![
        Change::Save(record(1, 10), snapshot("handshake of one")),
        Change::Save(record(2, 20), snapshot("handshake of two")),
        Change::Save(record(3, 30), snapshot("three")),
    ];
    records(&first).await.apply(changes).await.expect("written");
    let changes = vec![
        Change::Touch(SessionKey([1; 32]), record(1, 99).last_activity),
        Change::Save(record(2, 25), snapshot("two again")),
        Change::End(SessionKey([3; 32]), record(3, 31).last_activity),
        Change::End(SessionKey([9; 32]), record(9, 29).last_activity),
    ];
    // A failed batch is retried, so a repeated batch changes nothing.
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
        let found = again.snapshot(SessionKey([key; 32])).await.expect("readable");
        assert_eq!(found, expected.map(snapshot));
    }
    assert_eq!(
        again.ended(9).await.expect("endings"),
        [SessionKey([9; 32]), SessionKey([3; 32])]
    );
    second.close().await;
    let file = std::fs::read(directory.path().join("sessions.db")).expect("the file");
    assert!(
        !file.windows(9).any(|window| window == b"handshake"),
        "a snapshot is not sealed"
    );
}

#[tokio::test]
async fn concurrent_starts_create_the_tables_once() {
    let directory = TempDir::new().expect("a directory");
    // All open an empty database.
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = pool(&directory).await;
        starts.spawn(async move { SqliteRecords::from_pools(pool.clone(), pool, Arc::new(Reversed)).await });
    }
    for started in starts.join_all().await {
        started.expect("tables").all().await.expect("records");
    }
}

#[tokio::test]
async fn used_record_does_not_expire_and_ended_session_is_not_saved_again() {
    let directory = TempDir::new().expect("a directory");
    let pool = pool(&directory).await;
    let store = records(&pool).await;
    let changes = [1, 2, 3].map(|key| Change::Save(record(key, 10), snapshot("a handshake")));
    store.apply(changes.to_vec()).await.expect("written");
    let used = |seconds| record(0, seconds).last_activity;
    let expire = |key, known| Change::ExpireIfUnused {
        key: SessionKey([key; 32]),
        at: used(50),
        last_activity: used(known),
    };
    let changes = vec![
        Change::Touch(SessionKey([1; 32]), used(40)),
        // Another registry writes an older time, which changes nothing.
        Change::Touch(SessionKey([1; 32]), used(20)),
        expire(1, 10),
        expire(2, 10),
        Change::End(SessionKey([3; 32]), used(51)),
    ];
    store.apply(changes).await.expect("written");
    let late = [2, 3].map(|key| Change::Save(record(key, 60), snapshot("too late")));
    store.apply(late.to_vec()).await.expect("written");
    assert_eq!(store.all().await.expect("records"), [record(1, 40)]);
    let ended = [SessionKey([2; 32]), SessionKey([3; 32])];
    assert_eq!(store.ended(9).await.expect("endings"), ended);
}

#[tokio::test]
async fn snapshot_sealed_for_another_record_is_damaged() {
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
        store.snapshot(SessionKey([1; 32])).await.expect("readable"),
        Some(snapshot("one"))
    );
    let damaged = store.snapshot(SessionKey([2; 32])).await;
    assert!(matches!(damaged, Err(RecordsError::Damaged(_))), "{damaged:?}");
}

#[tokio::test]
async fn endings_are_bounded_by_age_and_number() {
    let directory = TempDir::new().expect("a directory");
    let pool = pool(&directory).await;
    let store = records(&pool).await;
    let time = |seconds| record(0, seconds).last_activity;
    let changes = (1..=9)
        .map(|n| Change::End(SessionKey([n; 32]), time(u64::from(n))))
        .collect();
    store.apply(changes).await.expect("written");
    // A retried batch keeps the time of the first ending.
    let again = vec![Change::End(SessionKey([1; 32]), time(100))];
    store.apply(again).await.expect("written");
    let keys = |range: std::ops::RangeInclusive<u8>| range.map(|n| SessionKey([n; 32])).collect::<Vec<_>>();
    assert_eq!(
        store.ended(4).await.expect("endings"),
        keys(6..=9),
        "the newest, the oldest of them first"
    );
    store.forget_ended(time(3), 9).await.expect("forgotten");
    assert_eq!(store.ended(100).await.expect("endings"), keys(3..=9));
    store.forget_ended(time(3), 2).await.expect("forgotten");
    assert_eq!(store.ended(100).await.expect("endings"), keys(8..=9));
    store.forget_ended(time(3), 0).await.expect("forgotten");
    assert_eq!(store.ended(100).await.expect("endings"), []);
}

#[tokio::test]
async fn records_survive_every_migration() {
    let undo = [
        "ALTER TABLE session_records DROP COLUMN implicit",
        "DROP TABLE session_initializes",
        "DROP TABLE session_endings",
    ];
    // The database as the migration with this version leaves it.
    for (version, undo) in [(1, &undo[..]), (2, &undo[..2])] {
        let directory = TempDir::new().expect("a directory");
        let pool = pool(&directory).await;
        drop(records(&pool).await);
        for undo in undo {
            sqlx::query(*undo).execute(&pool).await.expect("undone");
        }
        sqlx::query("DELETE FROM _session_migrations WHERE version > ?")
            .bind(version)
            .execute(&pool)
            .await
            .expect("undone");
        sqlx::query(
            "INSERT INTO session_records (key_hash, grant_id, user_id, opened_at, last_activity, snapshot)
             VALUES (?, 'a grant', '42', 1000, 10000, ?)",
        )
        .bind(vec![1_u8; 32])
        .bind(Reversed.seal(SessionKey([1; 32]), b"a handshake"))
        .execute(&pool)
        .await
        .expect("a record");
        let store = records(&pool).await;
        assert_eq!(
            store.all().await.expect("records"),
            [record(1, 10)],
            "no implicit session"
        );
        let found = store.snapshot(SessionKey([1; 32])).await.expect("readable");
        assert_eq!(found, Some(snapshot("a handshake")));
        assert_eq!(store.ended(9).await.expect("endings"), []);
        let last = store.last_initialize(&record(1, 10).grant).await.expect("readable");
        assert_eq!(last, None);
        let end = vec![Change::End(SessionKey([1; 32]), record(1, 11).last_activity)];
        store.apply(end).await.expect("written");
        assert_eq!(store.ended(9).await.expect("endings"), [SessionKey([1; 32])]);
    }
}

#[tokio::test]
async fn last_initialize_of_a_grant_is_kept_until_its_revocation() {
    let directory = TempDir::new().expect("a directory");
    let pool = pool(&directory).await;
    let store = records(&pool).await;
    let of = |key: u8, grant: &str, user: &str| Record {
        grant: GrantId(grant.into()),
        user: UserId(user.into()),
        opened: record(0, u64::from(key)).last_activity,
        ..record(key, 10)
    };
    let last = async |grant: &str| {
        let last = store.last_initialize(&GrantId(grant.into())).await.expect("readable");
        last.map(|last| (last.key.0[0], last.snapshot))
    };
    let open = async |key, grant: &str, user: &str| {
        let change = Change::Open(of(key, grant, user), snapshot("a handshake"));
        store.apply(vec![change]).await.expect("written");
    };
    let known = |key| Some((key, snapshot("a handshake")));
    open(1, "a", "ann").await;
    open(2, "b", "ann").await;
    open(3, "c", "bob").await;
    open(4, "a", "ann").await;
    assert_eq!(store.all().await.expect("records").len(), 4);
    // Only an opening counts, and the end of its session does not.
    let changes = vec![
        Change::Save(of(1, "a", "ann"), snapshot("settings")),
        Change::End(SessionKey([4; 32]), record(0, 10).last_activity),
    ];
    store.apply(changes).await.expect("written");
    assert_eq!((last("a").await, last("c").await), (known(4), known(3)));
    // A session that has ended with its grant opens too late.
    open(4, "d", "ann").await;
    assert_eq!(last("d").await, None);

    let revoke = async |subject, seconds| {
        let change = Change::Revoke(subject, record(0, seconds).last_activity);
        store.apply(vec![change]).await.expect("written");
    };
    revoke(RevokedSubject::User(UserId("ann".into())), 2).await;
    assert_eq!(
        (last("a").await, last("b").await),
        (known(4), None),
        "a was opened later"
    );
    revoke(RevokedSubject::Grant(GrantId("a".into())), 4).await;
    assert_eq!((last("a").await, last("c").await), (None, known(3)));

    // The session of `c` has not ended, that of `e` has.
    open(5, "e", "eve").await;
    let end = vec![Change::End(SessionKey([5; 32]), record(0, 10).last_activity)];
    store.apply(end).await.expect("written");
    store
        .forget_initializes(record(0, 9).last_activity)
        .await
        .expect("forgotten");
    assert_eq!((last("c").await, last("e").await), (known(3), None));

    pool.close().await;
    let file = std::fs::read(directory.path().join("sessions.db")).expect("the file");
    assert!(!file.windows(9).any(|window| window == b"handshake"), "not sealed");
}

#[tokio::test]
async fn implicit_session_is_forgotten_and_saved_again() {
    let directory = TempDir::new().expect("a directory");
    let pool = pool(&directory).await;
    let store = records(&pool).await;
    let implicit = |seconds| Record {
        implicit: true,
        ..record(1, seconds)
    };
    let save = |seconds| Change::Save(implicit(seconds), snapshot("one"));
    let forget = |known: Option<u64>| Change::Forget {
        key: SessionKey([1; 32]),
        last_activity: known.map(|known| record(0, known).last_activity),
    };
    for (known, left) in [(Some(10), 0), (Some(12), 0), (Some(5), 1), (None, 0)] {
        store.apply(vec![save(10)]).await.expect("written");
        assert_eq!(store.all().await.expect("records"), [implicit(10)]);
        store.apply(vec![forget(known)]).await.expect("written");
        assert_eq!(store.all().await.expect("records").len(), left, "{known:?}");
    }
    assert_eq!(store.ended(9).await.expect("endings"), []);
}
