//! Sessions that move to fresh backends before their credential runs out.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::Method;
use http_body_util::BodyExt;
use session::{
    Config, Stats,
    ports::{EndReason, Event},
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    fakes::{Outcome, ScriptedSpawner, lock, rpc, settle, text},
    revival::durable,
    world::{Answers, LIFETIME, World, user},
};

/// Idle sessions keep their backends: rotation is what moves them here.
fn config() -> Config {
    Config {
        idle_timeout: LIFETIME * 100,
        start_timeout: Duration::from_secs(10 * 60),
        ..Config::default()
    }
}

/// Just before the lead begins, and after the next round of the rotator.
const BEFORE: Duration = Duration::from_secs(54 * 60);
const AFTER: Duration = Duration::from_secs(4 * 60);

#[tokio::test(start_paused = true)]
async fn all_sessions_of_a_user_move_after_one_refresh() {
    let world = World::new(config()).await;
    let (a, b, c) = (
        world.open("ann/x").await,
        world.open("ann/y").await,
        world.open("bob/x").await,
    );
    sleep(BEFORE).await;
    assert_eq!(world.spawner.orders(), 3);
    sleep(AFTER).await;
    assert_eq!(world.spawner.orders(), 6);
    assert_eq!(world.wallet("ann").refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(world.wallet("bob").refreshes.load(Ordering::SeqCst), 1);
    assert_eq!(world.spawner.running.now(), 3, "the old ones are gone");
    assert_eq!(world.reg.stats().attached, 3);
    for (who, id) in [("ann/x", &a), ("ann/y", &b), ("bob/x", &c)] {
        world.must_answer(who, id).await;
    }
    for order in &lock(&world.spawner.orders)[3..] {
        let snapshot = order.snapshot.clone().expect("a snapshot");
        assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    }
    sleep(LIFETIME).await;
    assert_eq!(world.spawner.orders(), 9, "and again");
}

#[tokio::test(start_paused = true)]
async fn the_new_backend_is_there_before_the_old_one_goes_and_what_is_in_flight_finishes() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(config(), Arc::clone(&spawner)).await);
    let id = open(&world, "ann/x").await;
    let old = spawner.last();
    let mut calls = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&world), id.clone());
    calls.spawn(async move {
        text(
            asked
                .send(Method::POST, "ann/x", Some(&asked_id), &rpc("5", "slow"))
                .await,
        )
        .await
    });
    let stream = world.send(Method::GET, "ann/x", Some(&id), "").await;
    sleep(BEFORE + AFTER).await;
    // The fresh one starts slowly: all goes on on the old one.
    assert_eq!(spawner.orders(), 2);
    world.must_answer("ann/x", &id).await;
    assert_eq!(lock(&old.seen).len(), 5);
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Good));
    settle().await;
    let fresh = spawner.last();
    world.must_answer("ann/x", &id).await;
    assert_eq!((lock(&old.seen).len(), lock(&fresh.seen).len()), (5, 1));
    assert!(
        stream.into_body().collect().await.is_ok(),
        "what only listens is sent away cleanly"
    );
    assert!(!old.is_gone(), "a call is in flight on it");
    assert!(old.answer_slow());
    assert!(
        calls
            .join_next()
            .await
            .expect("a call")
            .expect("no panic")
            .contains(r#""id":5,"result""#)
    );
    settle().await;
    assert!(old.is_gone() && !fresh.is_gone());
    // The end of the old one takes nobody along.
    world.must_answer("ann/x", &id).await;
}

async fn open(world: &Arc<World>, who: &'static str) -> String {
    let mut clients = JoinSet::new();
    let of = Arc::clone(world);
    clients.spawn(async move { of.open(who).await });
    settle().await;
    world.spawner.decide(&world.spawner.last_tag(), Outcome::Good);
    clients.join_all().await.remove(0)
}

#[tokio::test(start_paused = true)]
async fn the_watcher_of_a_replaced_backend_evicts_nobody() {
    let world = World::new(config()).await;
    let id = world.open("ann/x").await;
    let old = world.spawner.last();
    world.spawner.hold_stops.send_replace(true);
    sleep(BEFORE + AFTER).await;
    assert_eq!(world.spawner.running.now(), 2, "the old one is being stopped");
    old.die();
    settle().await;
    assert_eq!(world.reg.stats().attached, 1);
    world.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_cut_off() {
    let world = Arc::new(World::new(config()).await);
    let id = world.open("ann/x").await;
    let mut calls = JoinSet::new();
    let asked = Arc::clone(&world);
    calls.spawn(async move { text(asked.send(Method::POST, "ann/x", Some(&id), &rpc("5", "slow")).await).await });
    sleep(BEFORE + AFTER).await;
    assert!(calls.try_join_next().is_none());
    sleep(config().rotate_grace).await;
    let said = calls.join_next().await.expect("a call").expect("no panic");
    assert!(said.contains(r#""id":5,"error""#), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_spawn_keeps_the_old_backend_and_is_tried_again() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(config(), Arc::clone(&spawner)).await);
    let id = open(&world, "ann/x").await;
    sleep(BEFORE + AFTER).await;
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Failed));
    settle().await;
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.spawner.running.now(), 1);
    sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(spawner.orders(), 3, "before the old credential runs out");
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Good));
    settle().await;
    assert_eq!(world.count(|event| *event == Event::Rotated), 1);
    world.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_ends_the_sessions_of_the_user_alone() {
    let world = World::new(Config {
        retain: crate::revival::RETAIN,
        ..config()
    })
    .await;
    let (id, other) = (world.open("ann/x").await, world.open("bob/x").await);
    *lock(&world.wallet("ann").answers) = Answers::Never;
    sleep(BEFORE + AFTER).await;
    assert_eq!(world.ping("ann/x", &id).await.0, 404);
    world.must_answer("bob/x", &other).await;
    assert_eq!(world.count(|event| *event == Event::Ended(EndReason::Revoked)), 1);
    assert_eq!(world.spawner.running.now(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_now_serves_on_and_ends_at_expiry_only() {
    for (retain, after_expiry) in [(Duration::ZERO, 404), (crate::revival::RETAIN, 503)] {
        let world = World::new(Config { retain, ..config() }).await;
        let id = world.open("ann/x").await;
        *lock(&world.wallet("ann").answers) = Answers::Later;
        sleep(BEFORE + AFTER).await;
        world.must_answer("ann/x", &id).await;
        let tries = world.wallet("ann").refreshes.load(Ordering::SeqCst);
        assert!((1..6).contains(&tries), "{tries}");
        sleep(Duration::from_secs(5 * 60)).await;
        assert_eq!(world.spawner.running.now(), 0);
        assert_eq!(world.ping("ann/x", &id).await.0, after_expiry);
        *lock(&world.wallet("ann").answers) = Answers::Renewed;
        let back = if retain.is_zero() { 404 } else { 200 };
        assert_eq!(
            world.ping("ann/x", &id).await.0,
            back,
            "what is retained comes back with the credential"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_now_that_passes_is_not_noticed() {
    let world = World::new(config()).await;
    let id = world.open("ann/x").await;
    *lock(&world.wallet("ann").answers) = Answers::Later;
    sleep(BEFORE + AFTER).await;
    *lock(&world.wallet("ann").answers) = Answers::Renewed;
    sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(world.spawner.orders(), 2);
    world.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_sign_in_moves_live_sessions_to_its_credential() {
    let world = World::new(durable()).await;
    let (id, other) = (world.open("ann/x").await, world.open("bob/x").await);
    sleep(Duration::from_secs(60)).await;
    world.wallet("ann").replace();
    world.reg.rotate_user(&user("ann/x"));
    settle().await;
    assert_eq!(world.spawner.orders(), 3);
    assert_eq!(
        world.wallet("ann").refreshes.load(Ordering::SeqCst),
        0,
        "there is nothing to renew"
    );
    world.must_answer("ann/x", &id).await;
    world.must_answer("bob/x", &other).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_refresh_of_one_user_delays_nobody() {
    let world = World::new(config()).await;
    let (slow, quick) = (world.open("ann/x").await, world.open("bob/x").await);
    *lock(&world.wallet("ann").delay) = Duration::from_secs(600);
    sleep(BEFORE + AFTER).await;
    assert_eq!(world.spawner.orders(), 3, "the other one has moved");
    world.must_answer("ann/x", &slow).await;
    world.must_answer("bob/x", &quick).await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_goes_on_during_a_rotation_is_not_lost() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(config(), Arc::clone(&spawner)).await);
    let mut clients = JoinSet::new();
    let of = Arc::clone(&world);
    clients.spawn(async move {
        let response = of.send(Method::POST, "ann/x", None, &rpc("1", "initialize")).await;
        crate::fakes::session_id(&response).expect("an id")
    });
    settle().await;
    spawner.decide(&spawner.last_tag(), Outcome::Good);
    let id = clients.join_all().await.remove(0);
    sleep(BEFORE + AFTER).await;
    assert_eq!(spawner.orders(), 2);
    let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    drop(world.send(Method::POST, "ann/x", Some(&id), initialized).await);
    spawner.decide(&spawner.last_tag(), Outcome::Good);
    settle().await;
    assert_eq!(spawner.orders(), 3, "the first one knew too little");
    spawner.decide(&spawner.last_tag(), Outcome::Good);
    settle().await;
    let last = lock(&spawner.orders)
        .last()
        .expect("an order")
        .snapshot
        .clone()
        .expect("a snapshot");
    assert_eq!(last.0, "<initialize><notifications/initialized>");
    world.must_answer("ann/x", &id).await;
    assert_eq!(spawner.running.now(), 1);
}

#[tokio::test(start_paused = true)]
async fn delete_and_revocation_during_a_rotation_leave_nothing() {
    for revoke in [false, true] {
        for decide_after in [false, true] {
            let spawner = ScriptedSpawner::gated();
            let world = Arc::new(World::with(config(), Arc::clone(&spawner)).await);
            let id = open(&world, "ann/x").await;
            sleep(BEFORE + AFTER).await;
            assert_eq!(spawner.orders(), 2);
            if !decide_after {
                spawner.decide(&spawner.last_tag(), Outcome::Good);
            }
            if revoke {
                world.reg.end_user(&user("ann/x")).await;
            } else {
                drop(world.send(Method::DELETE, "ann/x", Some(&id), "").await);
            }
            settle().await;
            if decide_after {
                assert!(
                    !spawner.decide(&spawner.last_tag(), Outcome::Good),
                    "the spawn was dropped"
                );
            }
            assert_eq!((world.reg.stats(), spawner.running.now()), (Stats::default(), 0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_dies_during_its_rotation_is_revived_once() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(
        World::with(
            Config {
                retain: crate::revival::RETAIN,
                ..config()
            },
            Arc::clone(&spawner),
        )
        .await,
    );
    let id = open(&world, "ann/x").await;
    sleep(BEFORE + AFTER).await;
    spawner.last().die();
    settle().await;
    assert!(
        !spawner.decide(&spawner.last_tag(), Outcome::Good),
        "there is nothing to rotate any more, and nobody asked for a backend"
    );
    settle().await;
    assert_eq!(spawner.running.now(), 0);
    let mut clients = JoinSet::new();
    let of = Arc::clone(&world);
    clients.spawn(async move { of.ping("ann/x", &id).await.0 });
    settle().await;
    spawner.decide(&spawner.last_tag(), Outcome::Good);
    assert_eq!(clients.join_all().await, [200]);
    assert_eq!(spawner.running.now(), 1);
}
