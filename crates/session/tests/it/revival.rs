//! Sessions that outlive their backends: idleness, death, restart, and what bounds it all.

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
    fakes::{Outcome, ScriptedSpawner, lock, rpc, session_id, settle, text},
    world::World,
};

pub(crate) const RETAIN: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn durable() -> Config {
    Config {
        retain: RETAIN,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_sleeps_and_the_next_request_wakes_it() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!((world.reg.stats().attached, world.reg.stats().dormant), (0, 1));
    assert_eq!(world.spawner.running.now(), 0);
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.reg.stats().attached, 1);
    let order = lock(&world.spawner.orders).last().expect("an order").clone();
    let replayed = order.snapshot.expect("a snapshot").0;
    assert_eq!(replayed, "<initialize><notifications/initialized>");
}

#[tokio::test(start_paused = true)]
async fn one_revival_serves_all_requests_that_wait_for_it() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(durable(), Arc::clone(&spawner)).await);
    let id = open_gated(&world, "ann/x").await;
    spawner.last().die();
    settle().await;
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let (world, id) = (Arc::clone(&world), id.clone());
        clients.spawn(async move { world.ping("ann/x", &id).await.0 });
    }
    settle().await;
    assert_eq!(spawner.orders(), 2, "one spawn for all of them");
    // Most of them leave, and the one that began the revival among them; it goes on.
    let mut rest = JoinSet::new();
    let (other, other_id) = (Arc::clone(&world), id.clone());
    rest.spawn(async move { other.ping("ann/x", &other_id).await.0 });
    settle().await;
    clients.shutdown().await;
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Good));
    assert_eq!(rest.join_all().await, [200]);
    assert_eq!(spawner.orders(), 2);
}

async fn open_gated(world: &Arc<World>, who: &'static str) -> String {
    let mut clients = JoinSet::new();
    let of = Arc::clone(world);
    clients.spawn(async move { of.open(who).await });
    settle().await;
    world.spawner.decide(&world.spawner.last_tag(), Outcome::Good);
    clients.join_all().await.remove(0)
}

#[tokio::test(start_paused = true)]
async fn a_crash_costs_what_was_in_flight_and_nothing_more() {
    let world = Arc::new(World::new(durable()).await);
    let id = world.open("ann/x").await;
    let mut clients = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&world), id.clone());
    clients.spawn(async move {
        let response = asked
            .send(Method::POST, "ann/x", Some(&asked_id), &rpc("5", "slow"))
            .await;
        (response.status().as_u16(), text(response).await)
    });
    settle().await;
    world.spawner.last().die();
    let (status, body) = clients.join_next().await.expect("a client").expect("no panic");
    assert!(status == 200 && body.contains(r#""id":5,"error""#), "{body}");
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.spawner.orders(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_that_was_not_yet_noticed_gets_no_request() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    // No task has run since: the observer does not know.
    world.spawner.last().die();
    world.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_backend_has_not_read_is_asked_of_the_next_one() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    world.must_answer("ann/x", &id).await;
    let first = world.spawner.last();
    first.deafen();
    world.must_answer("ann/x", &id).await;
    assert!(first.is_gone() && world.spawner.orders() == 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_backend_may_have_read_is_not_asked_again() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    let response = world.send(Method::POST, "ann/x", Some(&id), &rpc("5", "dies")).await;
    let body = text(response).await;
    assert!(body.contains(r#""id":5,"error""#), "{body}");
    assert_eq!(world.spawner.orders(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_bounded_and_says_so() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        // Each backend dies of its first request.
        let response = world.send(Method::POST, "ann/x", Some(&id), &rpc("9", "dies")).await;
        assert_eq!(response.status(), 200);
        settle().await;
        let before = world.spawner.orders();
        let response = world.send(Method::POST, "ann/x", Some(&id), &rpc("9", "dies")).await;
        if response.status() != 503 {
            settle().await;
            continue;
        }
        assert_eq!(world.spawner.orders(), before, "nothing is started before its time");
        let after = response.headers()["retry-after"]
            .to_str()
            .expect("text")
            .parse()
            .expect("a number");
        let body = text(response).await;
        assert!(body.contains(r#""id":9"#) && body.contains("keeps ending"), "{body}");
        waits.push(after);
        sleep(Duration::from_secs(after)).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
    assert_eq!(world.count(|event| *event == Event::BackedOff), 5);
    // Whoever has answered once is no part of a loop.
    for _ in 0..10 {
        world.must_answer("ann/x", &id).await;
        world.spawner.last().die();
        settle().await;
    }
    world.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_of_a_backend_does_not_end_a_crash_loop() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    let mut told = Vec::new();
    for _ in 0..3 {
        let taken = world.send(Method::POST, "ann/x", Some(&id), cancelled).await;
        let refused = world.send(Method::POST, "ann/x", Some(&id), &rpc("9", "busy")).await;
        told.push((taken.status().as_u16(), refused.status().as_u16()));
        drop((taken, refused));
        world.spawner.last().die();
        settle().await;
    }
    // The first backend has answered `initialize`, the second one nothing, and neither has the third.
    assert_eq!(told, [(202, 429); 3]);
    assert_eq!(world.ping("ann/x", &id).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn a_failed_revival_is_told_with_the_id_and_loses_nothing() {
    for (outcome, expected) in [(Outcome::Failed, 502), (Outcome::Unavailable, 503)] {
        let spawner = ScriptedSpawner::gated();
        let world = Arc::new(World::with(durable(), Arc::clone(&spawner)).await);
        let id = open_gated(&world, "ann/x").await;
        spawner.last().die();
        settle().await;
        for (outcome, expected) in [(outcome, expected), (Outcome::Good, 200)] {
            let mut clients = JoinSet::new();
            let (asked, asked_id) = (Arc::clone(&world), id.clone());
            clients.spawn(async move { asked.ping("ann/x", &asked_id).await });
            settle().await;
            spawner.decide(&spawner.last_tag(), outcome);
            let (status, body) = clients.join_next().await.expect("a client").expect("no panic");
            assert_eq!(status, expected, "{body}");
            assert!(body.contains(r#""id":77"#) && !body.contains("SECRET"), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_revival_that_needs_a_sign_in_ends_the_users_sessions() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(durable(), Arc::clone(&spawner)).await);
    let id = open_gated(&world, "ann/x").await;
    let other = open_gated(&world, "ann/y").await;
    spawner.backend(&lock(&spawner.orders)[0].tag).die();
    settle().await;
    let mut clients = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&world), id.clone());
    clients.spawn(async move { asked.ping("ann/x", &asked_id).await.0 });
    settle().await;
    spawner.decide(&spawner.last_tag(), Outcome::Credentials);
    assert_eq!(clients.join_all().await, [401]);
    settle().await;
    assert_eq!(world.ping("ann/y", &other).await.0, 404);
    assert_eq!(world.reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_retained_ends_when_its_time_is_over() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(RETAIN - Duration::from_secs(60)).await;
    world.must_answer("ann/x", &id).await;
    sleep(RETAIN - Duration::from_secs(60)).await;
    assert_eq!(world.reg.stats().dormant, 1);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(world.ping("ann/x", &id).await.0, 404);
    sleep(Duration::from_secs(1)).await;
    assert!(lock(&world.records.rows).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_session_survives_a_restart() {
    let mut world = World::new(durable()).await;
    let (id, deleted) = (world.open("ann/x").await, world.open("ann/x").await);
    drop(world.send(Method::DELETE, "ann/x", Some(&deleted), "").await);
    world.reg.stop().await;
    assert_eq!(world.spawner.running.now(), 0);
    assert_eq!(world.ping("ann/x", &id).await.0, 503);

    world.restart().await;
    assert_eq!((world.reg.stats().attached, world.reg.stats().dormant), (0, 1));
    assert_eq!(world.ping("bob/x", &id).await.0, 403, "it is still bound to its grant");
    assert_eq!(world.spawner.orders(), 2, "and nobody else wakes it");
    world.must_answer("ann/x", &id).await;
    assert_eq!(
        world.ping("ann/x", &deleted).await.0,
        404,
        "what has ended does not come back, and its id is still one that was good"
    );
}

#[tokio::test(start_paused = true)]
async fn an_ended_id_is_told_from_an_unknown_one_after_restarts_too() {
    let mut world = World::new(durable()).await;
    let (deleted, revoked) = (world.open("ann/x").await, world.open("bob/x").await);
    drop(world.send(Method::DELETE, "ann/x", Some(&deleted), "").await);
    world.reg.end_user(&crate::world::user("bob/x")).await;
    // One that nobody used while there was no registry ends at the next start.
    let expired = world.open("ann/x").await;
    world.reg.stop().await;
    sleep(RETAIN).await;
    for _ in 0..2 {
        world.restart().await;
        for (who, id) in [("ann/x", &deleted), ("bob/x", &revoked), ("ann/x", &expired)] {
            assert_eq!(world.ping(who, id).await.0, 404);
        }
        assert_eq!(world.ping("ann/x", &"0".repeat(48)).await.0, 410);
        world.reg.stop().await;
    }
    assert!(lock(&world.records.rows).is_empty());
    // But not for ever.
    sleep(durable().tombstone_age + Duration::from_secs(1)).await;
    world.restart().await;
    assert_eq!(world.ping("ann/x", &deleted).await.0, 410);
    assert!(lock(&world.records.endings).is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_endings_are_kept_than_are_remembered() {
    let config = Config {
        tombstones: 3,
        ..durable()
    };
    let mut world = World::new(config).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = world.open("ann/x").await;
        drop(world.send(Method::DELETE, "ann/x", Some(&id), "").await);
        sleep(Duration::from_secs(1)).await;
        ids.push(id);
    }
    world.reg.stop().await;
    world.restart().await;
    let mut statuses = Vec::new();
    for id in &ids {
        statuses.push(world.ping("ann/x", id).await.0);
    }
    assert_eq!(statuses, [410, 410, 404, 404, 404]);
    assert_eq!(lock(&world.records.endings).len(), 3);
    // Those that are too old go while it runs, too.
    sleep(durable().tombstone_age + Duration::from_secs(2 * 3600)).await;
    assert!(lock(&world.records.endings).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_the_process_loses_at_most_the_stated_window() {
    let mut world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(durable().write_behind * 2).await;
    let late = world.open("ann/x").await;
    // As good as killed: nothing of this registry runs any more that would write.
    *lock(&world.records.refuses) = true;
    let first = Arc::clone(&world.reg);
    world.restart().await;
    world.must_answer("ann/x", &id).await;
    assert_eq!(world.ping("ann/x", &late).await.0, 410);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_another_registry_serves_is_not_ended_for_it() {
    let mut world = World::new(durable()).await;
    let (one, two) = (world.open("ann/x").await, world.open("ann/x").await);
    sleep(durable().write_behind * 2).await;
    let first = Arc::clone(&world.reg);
    *lock(&world.records.shared) = true;
    // Room for one: the others are over the cap at the start, or make room for the new one.
    world.lower_user_cap(1);
    world.restart().await;
    let new = world.open("ann/x").await;
    sleep(durable().write_behind * 2).await;
    assert_eq!(lock(&world.records.rows).len(), 3);
    assert!(lock(&world.records.endings).is_empty());

    let second = std::mem::replace(&mut world.reg, first);
    world.must_answer("ann/x", &one).await;
    // What its client ends has ended, whoever knows of it.
    assert_eq!(world.send(Method::DELETE, "ann/x", Some(&two), "").await.status(), 204);
    world.reg.stop().await;
    second.stop().await;
    world.lower_user_cap(2);
    world.restart().await;
    world.must_answer("ann/x", &one).await;
    world.must_answer("ann/x", &new).await;
    assert_eq!(world.ping("ann/x", &two).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn what_an_exchange_changes_is_recorded_however_long_its_revival_takes() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(durable(), Arc::clone(&spawner)).await);
    let mut clients = JoinSet::new();
    let of = Arc::clone(&world);
    clients.spawn(async move {
        let answer = of.send(Method::POST, "ann/x", None, &rpc("1", "initialize")).await;
        session_id(&answer)
    });
    settle().await;
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Good));
    let id = clients.join_next().await.expect("a client").expect("no panic");
    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(world.reg.stats().dormant, 1);
    let recorded = || lock(&world.records.rows).values().next().expect("a row").1.clone();
    assert_eq!(recorded().0, "<initialize>");
    let of = Arc::clone(&world);
    clients.spawn(async move {
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        drop(of.send(Method::POST, "ann/x", id.as_deref(), initialized).await);
        id
    });
    // The beginning of the exchange has been written long before it changes anything.
    sleep(durable().write_behind * 4).await;
    assert!(spawner.decide(&spawner.last_tag(), Outcome::Good));
    clients.join_next().await.expect("a client").expect("no panic");
    sleep(durable().write_behind * 2).await;
    assert_eq!(recorded().0, "<initialize><notifications/initialized>");
}

#[tokio::test(start_paused = true)]
async fn the_time_of_opening_outlasts_a_restart() {
    let mut world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(1)).await;
    let opened = |world: &World| lock(&world.records.rows).values().next().expect("a row").0.opened;
    let first = opened(&world);
    for _ in 0..2 {
        sleep(Duration::from_secs(20 * 60)).await;
        world.must_answer("ann/x", &id).await;
        world.reg.stop().await;
        world.restart().await;
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        drop(world.send(Method::POST, "ann/x", Some(&id), initialized).await);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(opened(&world), first);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_is_tried_again() {
    let world = World::new(durable()).await;
    *lock(&world.records.refuses) = true;
    let (id, ended) = (world.open("ann/x").await, world.open("ann/x").await);
    sleep(Duration::from_secs(5)).await;
    drop(world.send(Method::DELETE, "ann/x", Some(&ended), "").await);
    world.must_answer("ann/x", &id).await;
    sleep(Duration::from_secs(5)).await;
    assert!(lock(&world.records.rows).is_empty());
    *lock(&world.records.refuses) = false;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lock(&world.records.rows).len(), 1);
    let (_, snapshot) = lock(&world.records.rows).values().next().expect("a row").clone();
    assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    let batches = world.records.batches.load(Ordering::SeqCst);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(
        world.records.batches.load(Ordering::SeqCst),
        batches,
        "nothing changed, nothing is written"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_session_takes_the_place_of_the_one_that_slept_longest() {
    let config = Config {
        max_sessions_per_user: 2,
        ..durable()
    };
    let world = World::new(config).await;
    let oldest = world.open("ann/x").await;
    sleep(Duration::from_secs(60)).await;
    let newer = world.open("ann/x").await;
    assert_eq!(refused(&world).await, 429, "both have a backend");
    sleep(Duration::from_secs(20 * 60)).await;
    let newest = world.open("ann/x").await;
    assert_eq!(world.ping("ann/x", &oldest).await.0, 404);
    world.must_answer("ann/x", &newer).await;
    world.must_answer("ann/x", &newest).await;
    assert_eq!(refused(&world).await, 429);
    assert_eq!(world.count(|event| *event == Event::Ended(EndReason::Evicted)), 1);
}

async fn refused(world: &World) -> u16 {
    let response = world.send(Method::POST, "ann/x", None, &rpc("1", "initialize")).await;
    response.status().as_u16()
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_waking_is_not_displaced() {
    let config = Config {
        max_sessions_per_user: 1,
        ..durable()
    };
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(config, Arc::clone(&spawner)).await);
    let id = open_gated(&world, "ann/x").await;
    spawner.last().die();
    settle().await;
    let mut clients = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&world), id.clone());
    clients.spawn(async move { asked.ping("ann/x", &asked_id).await.0 });
    settle().await;
    assert_eq!(refused(&world).await, 429);
    spawner.decide(&spawner.last_tag(), Outcome::Good);
    assert_eq!(clients.join_all().await, [200]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_listens_wakes_nothing_and_ends_when_something_else_does() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    let on_backend = world.send(Method::GET, "ann/x", Some(&id), "").await;
    sleep(Duration::from_secs(20 * 60)).await;
    assert!(
        on_backend.into_body().collect().await.is_ok(),
        "it ends cleanly with the backend"
    );

    let mut parked = world.send(Method::GET, "ann/x", Some(&id), "").await;
    assert_eq!(parked.headers()["content-type"], "text/event-stream");
    assert_eq!(world.reg.stats().dormant, 1);
    let comment = parked.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(comment.into_data().expect("data"), ":\n\n");
    let mut reading = JoinSet::new();
    reading.spawn(parked.into_body().collect());
    sleep(Duration::from_secs(60)).await;
    assert!(reading.try_join_next().is_none(), "it stays while the session sleeps");
    world.must_answer("ann/x", &id).await;
    assert!(reading.join_next().await.expect("a reader").expect("no panic").is_ok());
    // One that was there before is served by the backend.
    let served = world.send(Method::GET, "ann/x", Some(&id), "").await;
    assert_eq!(lock(&world.spawner.last().streams).len(), 1);
    drop(served);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_listens_on_a_backend_of_no_use_waits_for_the_next_one() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    world.spawner.last().end_output();
    let mut parked = world.send(Method::GET, "ann/x", Some(&id), "").await;
    let comment = parked.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(comment.into_data().expect("data"), ":\n\n");
    assert_eq!(world.reg.stats().dormant, 1);
    world.must_answer("ann/x", &id).await;
    assert!(
        parked.into_body().collect().await.is_ok(),
        "it ends with the next backend"
    );
}

#[tokio::test(start_paused = true)]
async fn streams_on_a_sleeping_session_are_bounded() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(20 * 60)).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(world.send(Method::GET, "ann/x", Some(&id), "").await);
        settle().await;
    }
    assert!(streams.iter().all(|stream| stream.status() == 200));
    assert_eq!(world.send(Method::GET, "ann/x", Some(&id), "").await.status(), 429);
    drop(streams);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.send(Method::GET, "ann/x", Some(&id), "").await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn revocation_reaches_what_sleeps_and_what_wakes() {
    let spawner = ScriptedSpawner::gated();
    let world = Arc::new(World::with(durable(), Arc::clone(&spawner)).await);
    let asleep = open_gated(&world, "ann/x").await;
    spawner.last().die();
    settle().await;
    let waking = open_gated(&world, "ann/x").await;
    spawner.last().die();
    settle().await;
    let mut clients = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&world), waking.clone());
    clients.spawn(async move { asked.ping("ann/x", &asked_id).await.0 });
    settle().await;
    world.reg.end_user(&crate::world::user("ann/x")).await;
    assert_eq!(clients.join_all().await, [401], "who waits is told what has happened");
    assert_eq!(world.ping("ann/x", &asleep).await.0, 404);
    assert_eq!(world.reg.stats(), Stats::default());
    sleep(Duration::from_secs(1)).await;
    assert!(lock(&world.records.rows).is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_records_hold_no_session_id() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    sleep(Duration::from_secs(1)).await;
    let rows = lock(&world.records.rows);
    let (key, (record, _)) = rows.iter().next().expect("a row");
    let raw = hex::decode(&id).expect("hex");
    assert!(!key.0.windows(raw.len()).any(|window| window == raw) && !format!("{record:?}").contains(&id));
}

#[tokio::test(start_paused = true)]
async fn a_restart_with_lower_caps_keeps_the_sessions_used_last() {
    let mut world = World::new(durable()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(world.open("ann/x").await);
        sleep(Duration::from_secs(2)).await;
    }
    world.reg.stop().await;
    world.lower_user_cap(2);
    world.restart().await;
    assert_eq!(world.reg.stats().dormant, 2);
    assert_eq!(world.ping("ann/x", &ids[1]).await.0, 404);
    world.must_answer("ann/x", &ids[3]).await;
    assert!(
        session_id(
            &world
                .send(Method::POST, "ann/x", Some(&ids[3]), &rpc("2", "ping"))
                .await
        )
        .is_none()
    );
}
