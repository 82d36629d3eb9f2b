//! How sessions end: by the client, by the death of the backend, by idleness, by revocation, by shutdown.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use session::{
    Config, Registry, SignInRequired, Stats,
    ports::{AuthenticatedAt, UserId},
};
use tokio::{task::JoinSet, time::Instant};

use crate::fakes::{Outcome, ScriptedSpawner, grant, open, post, registry, request, rpc, said, settle, text};

async fn status_of(reg: &Registry, who: &str, id: &str) -> u16 {
    let (status, body) = said(reg, who, Some(id), &rpc("77", "ping")).await;
    assert!(body.contains(r#""id":77"#), "{body}");
    status
}

#[tokio::test(start_paused = true)]
async fn delete_ends_at_once_and_waits_for_no_backend() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    spawner.hold_stops.send_replace(true);
    let response = reg.serve(request(Method::DELETE, "ann/x", Some(&id), "")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(text(response).await, "");
    assert_eq!(status_of(&reg, "ann/x", &id).await, 404);
    let again = reg.serve(request(Method::DELETE, "ann/x", Some(&id), "")).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    settle().await;
    assert_eq!(spawner.last().stops.load(Ordering::SeqCst), 1);
    spawner.hold_stops.send_replace(false);
    settle().await;
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_takes_its_entry_along_and_answers_what_waits() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (id, other) = (open(&reg, "ann/x").await, open(&reg, "ann/x").await);
    let backend = spawner.backends.lock().expect("a lock")[0].clone();
    let mut clients = JoinSet::new();
    let (asked, asked_id) = (Arc::clone(&reg), id.clone());
    clients.spawn(async move { said(&asked, "ann/x", Some(&asked_id), &rpc("5", "slow")).await });
    settle().await;
    backend.die();
    let (status, body) = clients.join_next().await.expect("a client").expect("no panic");
    assert_eq!(status, 200);
    assert!(body.contains(r#""id":5,"error""#), "{body}");
    settle().await;
    assert_eq!(status_of(&reg, "ann/x", &id).await, 404);
    assert_eq!(status_of(&reg, "ann/x", &other).await, 200, "others notice nothing");
    assert_eq!(
        reg.stats(),
        Stats {
            attached: 1,
            dormant: 0,
            opening: 0,
            stopping: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn idle_sessions_are_reaped_by_stop() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (idle, used) = (open(&reg, "ann/x").await, open(&reg, "ann/x").await);
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    assert_eq!(status_of(&reg, "ann/x", &used).await, 200);
    tokio::time::sleep(Duration::from_secs(5 * 60 - 1)).await;
    assert_eq!(reg.stats().attached, 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(status_of(&reg, "ann/x", &idle).await, 404);
    assert_eq!(status_of(&reg, "ann/x", &used).await, 200);
    let first = spawner.backends.lock().expect("a lock")[0].clone();
    assert_eq!(first.stops.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_exchange_in_flight_pins_until_its_body_is_over() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let response = post(&reg, "ann/x", Some(&id), &rpc("2", "stream")).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(reg.stats().attached, 1, "the body is still there");
    spawner.last().streams.lock().expect("a lock").clear();
    assert!(response.into_body().collect().await.is_ok());
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(reg.stats().attached, 1, "idle only since the body is over");
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn an_exchange_whose_client_is_gone_pins_no_longer() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let mut clients = JoinSet::new();
    let asked = Arc::clone(&reg);
    clients.spawn(async move { said(&asked, "ann/x", Some(&id), &rpc("5", "slow")).await });
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(reg.stats().attached, 1);
    clients.shutdown().await;
    tokio::time::sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_only_listens_does_not_pin() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    let stream = reg.serve(request(Method::GET, "ann/x", Some(&id), "")).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(reg.stats().attached, 1, "opening it was a sign of life");
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(reg.stats(), Stats::default());
    assert!(stream.into_body().collect().await.is_ok(), "and it ends cleanly");
}

#[tokio::test(start_paused = true)]
async fn ending_a_grant_ends_its_sessions_and_waits_for_their_backends() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (a, b) = (open(&reg, "ann/x").await, open(&reg, "ann/y").await);
    spawner.hold_stops.send_replace(true);
    let gone = reg.end_grant(&grant("ann/x"));
    assert_eq!(status_of(&reg, "ann/x", &a).await, 404, "before anyone waits");
    assert_eq!(status_of(&reg, "ann/y", &b).await, 200);
    let mut waiting = JoinSet::new();
    waiting.spawn(gone);
    settle().await;
    assert!(waiting.try_join_next().is_none(), "the backend is still there");
    spawner.hold_stops.send_replace(false);
    waiting.join_next().await.expect("a task").expect("no panic");
    assert_eq!(spawner.running.now(), 1);
}

#[tokio::test(start_paused = true)]
async fn ending_a_user_ends_the_sessions_of_all_grants() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (a, b) = (open(&reg, "ann/x").await, open(&reg, "ann/y").await);
    let c = open(&reg, "bob/x").await;
    reg.end_user(&UserId("ann".into())).await;
    assert_eq!(status_of(&reg, "ann/x", &a).await, 404);
    assert_eq!(status_of(&reg, "ann/y", &b).await, 404);
    assert_eq!(status_of(&reg, "bob/x", &c).await, 200);
}

#[tokio::test(start_paused = true)]
async fn ending_a_grant_reaches_what_is_only_opening() {
    for outcome in [None, Some(Outcome::SilentInitialize)] {
        let spawner = ScriptedSpawner::gated();
        let reg = registry(&spawner, Config::default());
        let mut clients = JoinSet::new();
        let asked = Arc::clone(&reg);
        clients.spawn(async move { post(&asked, "ann/x", None, &rpc("1", "initialize")).await });
        settle().await;
        if let Some(outcome) = outcome {
            assert!(spawner.decide(&spawner.last_tag(), outcome));
            settle().await;
        }
        reg.end_grant(&grant("ann/x")).await;
        let response = clients.join_next().await.expect("a client").expect("no panic");
        assert!(response.headers().get("mcp-session-id").is_none());
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.extensions().get::<SignInRequired>().is_some());
        assert_eq!((reg.stats(), spawner.running.now()), (Stats::default(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_the_end_of_the_grant_overtakes_is_told_as_that_end() {
    // The spawn fails because the grant has ended, and both are known when the answer is made.
    for outcome in [Outcome::Failed, Outcome::Unavailable, Outcome::DiesAtInitialize] {
        let spawner = ScriptedSpawner::gated();
        let reg = registry(&spawner, Config::default());
        let mut clients = JoinSet::new();
        let asked = Arc::clone(&reg);
        clients.spawn(async move { post(&asked, "ann/x", None, &rpc("1", "initialize")).await });
        settle().await;
        assert!(spawner.decide(&spawner.last_tag(), outcome));
        drop(reg.end_user(&UserId("ann".into())));
        let response = clients.join_next().await.expect("a client").expect("no panic");
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{outcome:?}");
        assert!(response.extensions().get::<SignInRequired>().is_some());
        settle().await;
        assert_eq!((reg.stats(), spawner.running.now()), (Stats::default(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_ends_while_a_request_arrives_opens_nothing() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let checked_now = |who| {
        let mut asked = request(Method::POST, who, None, &rpc("1", "initialize"));
        asked.extensions_mut().insert(AuthenticatedAt(Instant::now()));
        asked
    };
    // Let in, and then everything of the grant, or of the user, is ended before the whole request is there.
    let (of_grant, of_user, other) = (checked_now("ann/x"), checked_now("bob/x"), checked_now("ann/y"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    reg.end_grant(&grant("ann/x")).await;
    reg.end_user(&UserId("bob".into())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for late in [of_grant, of_user] {
        let response = reg.serve(late).await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.extensions().get::<SignInRequired>().is_some());
    }
    assert_eq!(
        (spawner.orders(), reg.stats()),
        (0, Stats::default()),
        "and nothing is left of it"
    );
    assert_eq!(
        reg.serve(other).await.status(),
        StatusCode::OK,
        "another grant of the user"
    );
    // Who signs in again is let in after that.
    assert_eq!(reg.serve(checked_now("bob/x")).await.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_everything_in_parallel_and_takes_nothing_new() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    for _ in 0..9 {
        open(&reg, "ann/x").await;
    }
    spawner.hold_stops.send_replace(true);
    let mut stopping = JoinSet::new();
    for _ in 0..2 {
        let reg = Arc::clone(&reg);
        stopping.spawn(async move { reg.stop().await });
    }
    settle().await;
    let told = |b: &Arc<crate::fakes::RecordingBackend>| b.stops.load(Ordering::SeqCst);
    let backends = spawner.backends.lock().expect("a lock").clone();
    assert!(backends.iter().all(|b| told(b) == 1), "each is told while none is gone");
    for id in [None, Some(id.as_str())] {
        let response = post(&reg, "ann/x", id, &rpc("3", "initialize")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        assert!(text(response).await.contains(r#""id":3"#));
    }
    spawner.hold_stops.send_replace(false);
    while let Some(stopped) = stopping.join_next().await {
        stopped.expect("no panic");
    }
    assert_eq!((reg.stats(), spawner.running.now()), (Stats::default(), 0));
    reg.stop().await;
    assert_eq!(spawner.orders(), 10);
}

#[tokio::test(start_paused = true)]
async fn stop_gives_up_at_its_deadline() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    open(&reg, "ann/x").await;
    spawner.hold_stops.send_replace(true);
    let before = tokio::time::Instant::now();
    reg.stop().await;
    assert_eq!(before.elapsed(), Config::default().stop_deadline);
    assert_eq!(reg.stats().stopping, 1);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_what_is_only_opening() {
    let spawner = ScriptedSpawner::gated();
    let reg = registry(&spawner, Config::default());
    let mut clients = JoinSet::new();
    let asked = Arc::clone(&reg);
    clients.spawn(async move { said(&asked, "ann/x", None, &rpc("4", "initialize")).await });
    settle().await;
    reg.stop().await;
    let (status, body) = clients.join_next().await.expect("a client").expect("no panic");
    assert_eq!(status, 503);
    assert!(body.contains(r#""id":4"#), "{body}");
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn forgotten_ends_are_unknown() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(
        &spawner,
        Config {
            tombstones: 2,
            ..Config::default()
        },
    );
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = open(&reg, "ann/x").await;
        reg.serve(request(Method::DELETE, "ann/x", Some(&id), "")).await;
        settle().await;
        ids.push(id);
    }
    let mut statuses = Vec::new();
    for id in &ids {
        statuses.push(status_of(&reg, "ann/x", id).await);
    }
    assert_eq!(statuses, [410, 404, 404]);
}
