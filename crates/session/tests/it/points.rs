//! The twelve points that a registry of sessions has to keep, each in one test of its own.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use session::{Config, UnknownStatus, ports::UserId};
use tokio::time::sleep;

use crate::{
    fakes::{Outcome, ScriptedSpawner, lock, open, post, registry, request, rpc, said, session_id, settle, text},
    revival::durable,
    world::{Answers, World},
};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

#[tokio::test(start_paused = true)]
async fn point_01_initialize_without_an_id_spawns_and_mints_one_and_nothing_else_does() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    for body in [rpc("1", "tools/list"), INITIALIZED.to_owned()] {
        assert_eq!(said(&reg, "ann/x", None, &body).await.0, 400);
    }
    assert_eq!(spawner.orders(), 0);
    let id = open(&reg, "ann/x").await;
    assert!(
        id.len() == 48 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
        "{id}"
    );
    assert_eq!(spawner.orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn point_02_an_id_is_bound_to_its_grant() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    // A refreshed bearer of the grant is the same caller to the registry; another grant of the same user is not.
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.ping("ann/y", &id).await.0, 403);
    assert_eq!(world.ping("bob/x", &id).await.0, 403);
    sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(world.ping("ann/y", &id).await.0, 403, "nor while it sleeps");
    assert_eq!(world.ping("ann/x", &"0".repeat(48)).await.0, 410);
    assert_eq!(world.reg.stats().dormant, 1);
}

#[tokio::test(start_paused = true)]
async fn point_03_unknown_is_410_ended_is_404_and_one_setting_makes_both_404() {
    for (unknown_status, unknown) in [(UnknownStatus::Gone, 410), (UnknownStatus::NotFound, 404)] {
        let world = World::new(Config {
            unknown_status,
            ..durable()
        })
        .await;
        let (deleted, revoked) = (world.open("ann/x").await, world.open("bob/x").await);
        drop(world.send(Method::DELETE, "ann/x", Some(&deleted), "").await);
        world.reg.end_user(&UserId("bob".into())).await;
        for (who, id, status) in [
            ("ann/x", deleted.as_str(), 404),
            ("bob/x", &revoked, 404),
            ("ann/x", &"f".repeat(48), unknown),
        ] {
            let (got, body) = world.ping(who, id).await;
            assert_eq!(got, status);
            assert!(body.contains(r#""id":77,"error""#), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn point_04_caps_are_checked_before_anything_is_spawned() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let config = Config {
        max_sessions: 2,
        max_sessions_per_user: 1,
        ..durable()
    };
    let reg = registry(&spawner, config);
    open(&reg, "ann/x").await;
    let response = post(&reg, "ann/x", None, &rpc("5", "initialize")).await;
    assert_eq!(response.status(), 429);
    assert!(response.headers().contains_key("retry-after"));
    let body = text(response).await;
    assert!(
        body.contains(&*spawner.last_tag()) && body.contains(r#""id":5"#),
        "{body}"
    );
    open(&reg, "bob/x").await;
    let response = post(&reg, "eve/x", None, &rpc("5", "initialize")).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(spawner.orders(), 2);
}

#[tokio::test(start_paused = true)]
async fn point_05_without_a_caller_it_is_500_and_never_a_spawn() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, durable());
    let id = open(&reg, "ann/x").await;
    spawner.last().die();
    settle().await;
    for id in [None, Some(id.as_str())] {
        let mut nobody = request(Method::POST, "ann/x", id, &rpc("1", "initialize"));
        nobody.extensions_mut().clear();
        assert_eq!(reg.serve(nobody).await.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
    assert_eq!(spawner.orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn point_06_a_backend_that_dies_is_cleaned_up_at_once() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let waiting = async { said(&reg, "ann/x", Some(&id), &rpc("8", "slow")).await };
    let (answer, ()) = tokio::join!(waiting, async {
        settle().await;
        spawner.last().die();
    });
    assert!(
        answer.0 == 200 && answer.1.contains(r#""id":8,"error""#),
        "{}",
        answer.1
    );
    settle().await;
    assert_eq!(reg.stats().attached, 0);
    assert_eq!(said(&reg, "ann/x", Some(&id), &rpc("9", "ping")).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn point_07_idle_backends_are_stopped_and_what_is_in_flight_pins() {
    let world = World::new(durable()).await;
    let (idle, busy) = (world.open("ann/x").await, world.open("bob/x").await);
    let stream = world
        .send(Method::POST, "bob/x", Some(&busy), &rpc("2", "stream"))
        .await;
    let _listens = world.send(Method::GET, "ann/x", Some(&idle), "").await;
    sleep(Duration::from_secs(15 * 60 + 31)).await;
    assert_eq!((world.reg.stats().attached, world.reg.stats().dormant), (1, 1));
    let stopped = lock(&world.spawner.backends)[0].stops.load(Ordering::SeqCst);
    assert_eq!(stopped, 1, "by its stop");
    drop(stream);
    sleep(Duration::from_secs(15 * 60 + 31)).await;
    assert_eq!(world.reg.stats().dormant, 2);
}

#[tokio::test(start_paused = true)]
async fn point_08_a_session_moves_before_its_credential_runs_out_and_keeps_its_id() {
    let world = World::new(Config {
        idle_timeout: Duration::from_secs(1 << 30),
        ..durable()
    })
    .await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(57 * 60)).await;
    assert_eq!(world.wallet("ann").refreshes.load(Ordering::SeqCst), 1);
    assert_eq!((world.spawner.orders(), world.spawner.running.now()), (2, 1));
    world.must_answer("ann/x", &id).await;
    // A client that initializes again on its id is served too, and not told another one.
    let again = world
        .send(Method::POST, "ann/x", Some(&id), &rpc("3", "initialize"))
        .await;
    assert_eq!((again.status().as_u16(), session_id(&again)), (200, None));
}

#[tokio::test(start_paused = true)]
async fn point_09_a_refusal_for_good_ends_the_sessions_and_one_for_now_does_not() {
    for (answers, during, spawns) in [(Answers::Never, 404, 1), (Answers::Later, 200, 1)] {
        let world = World::new(Config {
            idle_timeout: Duration::from_secs(1 << 30),
            ..durable()
        })
        .await;
        let id = world.open("ann/x").await;
        *lock(&world.wallet("ann").answers) = answers;
        sleep(Duration::from_secs(58 * 60)).await;
        assert_eq!(world.ping("ann/x", &id).await.0, during);
        assert_eq!(world.spawner.orders(), spawns);
    }
}

#[tokio::test(start_paused = true)]
async fn point_10_stop_leaves_no_backend_and_is_idempotent() {
    let world = World::new(durable()).await;
    for who in ["ann/x", "bob/x", "eve/x"] {
        world.open(who).await;
    }
    tokio::join!(world.reg.stop(), world.reg.stop());
    assert_eq!(world.spawner.running.now(), 0);
    world.reg.stop().await;
    let response = world.send(Method::POST, "ann/x", None, &rpc("1", "initialize")).await;
    assert_eq!(response.status(), 503);
    assert_eq!(lock(&world.records.rows).len(), 3, "and what is durable is kept");
}

#[tokio::test(start_paused = true)]
async fn point_11_a_durable_session_outlives_idleness_crash_and_restart() {
    let mut world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(20 * 60)).await;
    world.must_answer("ann/x", &id).await;
    world.spawner.last().die();
    world.must_answer("ann/x", &id).await;
    world.reg.stop().await;
    world.restart().await;
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.spawner.orders(), 4);
    for order in &lock(&world.spawner.orders)[1..] {
        let snapshot = order.snapshot.clone().expect("a snapshot");
        assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    }
}

#[tokio::test(start_paused = true)]
async fn point_12_a_modern_client_is_told_that_its_era_is_not_served() {
    // One session for each grant, without an id, needs a bridge that speaks the era of 2026-07-28. Until then a client that can
    // do both is told so in the way that makes it fall back to `initialize`.
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, durable());
    let (status, body) = said(&reg, "ann/x", None, &rpc("1", "server/discover")).await;
    assert!(
        status == 400 && body.contains("-32601") && body.contains(r#""id":1"#),
        "{body}"
    );
    assert_eq!(spawner.orders(), 0);
}
