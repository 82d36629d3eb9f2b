//! The SQLite store: opening, sharing, purging.

use std::{
    future::poll_fn,
    os::unix::fs::PermissionsExt as _,
    task::Poll,
    time::{Duration, UNIX_EPOCH},
};

use http::StatusCode;
use oauth::{
    Config,
    config::StaticClient,
    ids::ClientId,
    ports::{ClientInsertion, ClientStore as _, Store as _},
    records::{ClientAuth, ClientRecord},
    sqlite::SqliteStore,
};
use tokio::task::JoinSet;

use crate::{
    browser::Browser,
    world::{ALICE, BOB, ISSUER, REDIRECT, World},
};

async fn rows(world: &World, table: &'static str) -> i64 {
    let query = match table {
        "accounts" => "SELECT count(*) FROM oauth_accounts",
        "clients" => "SELECT count(*) FROM oauth_clients",
        "codes" => "SELECT count(*) FROM oauth_codes",
        "grants" => "SELECT count(*) FROM oauth_grants",
        "pending" => "SELECT count(*) FROM oauth_pending",
        "access" => "SELECT count(*) FROM oauth_access_tokens",
        "refresh" => "SELECT count(*) FROM oauth_refresh_tokens",
        other => panic!("{other}"),
    };
    sqlx::query_scalar(query).fetch_one(world.store.writer()).await.unwrap()
}

#[tokio::test]
async fn database_files_are_readable_by_their_owner_only() {
    let world = World::new().await;
    world.client().await;
    for entry in std::fs::read_dir(world.database().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
}

#[tokio::test]
async fn pools_can_be_shared_with_other_tables_and_migrations() {
    let world = World::new().await;
    sqlx::query("CREATE TABLE _sqlx_migrations (other INTEGER)")
        .execute(world.store.writer())
        .await
        .unwrap();
    let second = SqliteStore::from_pools(world.store.writer().clone(), world.store.readers().clone());
    let second = second.await.unwrap();
    second.probe().await.unwrap();
    world.client().await;
}

#[tokio::test]
async fn database_of_a_newer_version_is_named_and_not_changed() {
    let world = World::new().await;
    world.store.close().await;
    let url = format!("sqlite://{}", world.database().display());
    let newer = sqlx::SqlitePool::connect(&url).await.unwrap();
    let change = "INSERT INTO _oauth_migrations (version, description, success, checksum, execution_time)
                      VALUES (9999, 'later', 1, x'00', 0);
                  UPDATE oauth_program SET version = '99.0.0'";
    sqlx::raw_sql(change).execute(&newer).await.unwrap();
    newer.close().await;
    let before = std::fs::read(world.database()).unwrap();
    let error = SqliteStore::open(world.database()).await.unwrap_err().to_string();
    assert!(
        error.contains("version 99.0.0") && error.contains(env!("CARGO_PKG_VERSION")),
        "{error}"
    );
    assert_eq!(std::fs::read(world.database()).unwrap(), before);
}

#[tokio::test]
async fn writes_go_on_after_sqlite_has_undone_a_transaction_by_itself() {
    let world = World::new().await;
    let mut change = world.store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("ROLLBACK").execute(&mut *change).await.unwrap();
    drop(change);
    world.client().await;
}

#[tokio::test]
async fn writes_go_on_after_the_database_was_full() {
    let world = World::new().await;
    let writer = world.store.writer();
    let limit = "PRAGMA max_page_count = 1";
    sqlx::query(limit).execute(writer).await.unwrap();
    let large = |number| {
        let mut client = registered(number);
        client.name = Some("x".repeat(100_000));
        world.store.insert_client(client, 1000, UNIX_EPOCH)
    };
    large(0).await.expect_err("the database is full");
    let unlimited = "PRAGMA max_page_count = 4294967294";
    sqlx::query(unlimited).execute(writer).await.unwrap();
    large(1).await.unwrap();
    world.client().await;
}

#[tokio::test]
async fn readers_do_not_wait_for_writers_and_writers_queue() {
    const WRITERS: usize = 64;
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let mut long = world.store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("UPDATE oauth_clients SET name = 'not yet'")
        .execute(&mut *long)
        .await
        .unwrap();
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|number| world.store.insert_client(registered(number), 1000, UNIX_EPOCH))
        .collect();
    // All writers reach the store and wait there.
    for writer in &mut writers {
        let polled = poll_fn(|context| Poll::Ready(writer.as_mut().poll(context))).await;
        assert!(polled.is_pending(), "one writer runs at a time");
    }
    // Any number of readers see the state from before the long change.
    for _ in 0..20 {
        let record = world.store.client(&ClientId(client.clone())).await.unwrap().unwrap();
        assert_eq!(record.name.as_deref(), Some("Test client"));
        world.authenticate(&tokens.access).await.unwrap();
    }
    drop(long);
    let mut tasks = JoinSet::new();
    let store = world.store.clone();
    for number in WRITERS..2 * WRITERS {
        let store = store.clone();
        tasks.spawn(async move { store.insert_client(registered(number), 1000, UNIX_EPOCH).await });
    }
    for writer in writers {
        assert_eq!(writer.await.unwrap(), ClientInsertion::Inserted);
    }
    for outcome in tasks.join_all().await {
        assert_eq!(outcome.unwrap(), ClientInsertion::Inserted);
    }
    assert_eq!(rows(&world, "clients").await, 1 + 2 * i64::try_from(WRITERS).unwrap());
}

fn registered(number: usize) -> ClientRecord {
    ClientRecord {
        client_id: ClientId(format!("client-{number}")),
        name: None,
        redirect_uris: vec![REDIRECT.to_owned()],
        auth: ClientAuth::None,
        application_type: None,
        created_at: UNIX_EPOCH,
        domain: None,
        registration_token: None,
        fingerprint: None,
    }
}

#[tokio::test]
async fn reading_connection_refuses_to_write() {
    let world = World::new().await;
    let written = sqlx::query("DELETE FROM oauth_clients")
        .execute(world.store.readers())
        .await;
    assert!(written.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn closed_store_is_unavailable() {
    let world = World::new().await;
    world.server.probe().await.unwrap();
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.store.close().await;
    assert!(world.server.probe().await.is_err());
    // The failure is transient: clients keep their tokens on 503, and drop them on 400 or 401.
    let refresh = world.refresh(&client, &tokens.refresh).await;
    assert_eq!(refresh.error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn purge_deletes_expired_rows_only() {
    let world = World::new().await;
    let client = world.client().await;
    let alice = world.tokens(&client, ALICE).await;
    Browser::default().approve(&world, &client).await;
    world.server.purge_expired().await.unwrap();
    assert_eq!(rows(&world, "pending").await, 1);
    world.caller(&alice.access).await;

    world.clock.advance(Duration::from_secs(25 * 3600));
    // A code that is never redeemed leaves a grant without tokens.
    Browser::default().sign_in(&world, &client, BOB).await;
    world.clock.advance(Duration::from_secs(61));
    world.server.purge_expired().await.unwrap();
    assert_eq!(rows(&world, "pending").await, 0);
    assert_eq!(rows(&world, "access").await, 0);
    assert_eq!((rows(&world, "grants").await, rows(&world, "accounts").await), (1, 1));
    world.refresh(&client, &alice.refresh).await.tokens();

    world.clock.advance(Duration::from_secs(31 * 24 * 3600));
    world.server.purge_expired().await.unwrap();
    assert_eq!((rows(&world, "grants").await, rows(&world, "accounts").await), (0, 0));
    assert_eq!((rows(&world, "refresh").await, rows(&world, "codes").await), (0, 0));
    assert_eq!(rows(&world, "clients").await, 1, "a client is kept longer");
    world.clock.advance(Duration::from_secs(90 * 24 * 3600));
    world.server.purge_expired().await.unwrap();
    assert_eq!(rows(&world, "clients").await, 0);
}

#[tokio::test]
async fn grants_of_a_user_are_limited() {
    let clients: Vec<String> = (0..=100).map(|number| format!("client-{number}")).collect();
    let mut config = Config::new(ISSUER);
    config.clients = clients
        .iter()
        .map(|client_id| StaticClient {
            client_id: ClientId(client_id.clone()),
            client_secret: None,
            name: None,
            redirect_uris: vec![REDIRECT.to_owned()],
        })
        .collect();
    let world = World::with(config).await;
    let first = world.tokens(&clients[0], ALICE).await;
    let grant = world.caller(&first.access).await.grant().to_owned();
    for client in &clients[1..] {
        world.clock.advance(Duration::from_secs(1));
        Browser::default().sign_in(&world, client, ALICE).await;
    }
    assert_eq!(rows(&world, "grants").await, 100);
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
}
