//! The SQLite store by itself: opening, sharing, purging.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use http::StatusCode;
use oauth::{Config, config::StaticClient, ports::Store as _, sqlite::SqliteStore};

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
    sqlx::query_scalar(query).fetch_one(world.store.pool()).await.unwrap()
}

#[tokio::test]
async fn the_database_is_for_its_owner_alone() {
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
async fn the_pool_can_be_shared_with_other_tables_and_migrations() {
    let world = World::new().await;
    sqlx::query("CREATE TABLE _sqlx_migrations (other INTEGER)")
        .execute(world.store.pool())
        .await
        .unwrap();
    let second = SqliteStore::from_pool(world.store.pool().clone()).await.unwrap();
    second.probe().await.unwrap();
    world.client().await;
}

#[tokio::test]
async fn a_closed_store_is_no_good() {
    let world = World::new().await;
    world.server.probe().await.unwrap();
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.store.close().await;
    assert!(world.server.probe().await.is_err());
    // Passing trouble: clients keep their tokens on 503, where 400 or 401 would throw them away.
    let refresh = world.refresh(&client, &tokens.refresh).await;
    assert_eq!(refresh.error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn what_has_run_out_is_purged_and_what_has_not_stays() {
    let world = World::new().await;
    let client = world.client().await;
    let alice = world.tokens(&client, ALICE).await;
    Browser::default().approve(&world, &client).await;
    world.server.purge_expired().await.unwrap();
    assert_eq!(rows(&world, "pending").await, 1);
    world.caller(&alice.access).await;

    world.clock.advance(Duration::from_secs(25 * 3600));
    // A code that is never spent leaves a grant that nothing can use.
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
async fn a_user_has_a_limited_number_of_grants() {
    let clients: Vec<String> = (0..=100).map(|number| format!("client-{number}")).collect();
    let mut config = Config::new(ISSUER);
    config.clients = clients
        .iter()
        .map(|client_id| StaticClient {
            client_id: client_id.clone(),
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
