//! A session outlives its backends: it is revived after idleness and death, and a crash loop is
//! bounded.

use std::time::Duration;

use http::StatusCode;
use session::{
    Config, Stats,
    ports::{EndReason, Event, UserId},
    testing::SpawnOutcome,
};
use tokio::time::sleep;

use crate::harness::{Harness, RETAIN, body_text, durable, lock, rpc, run_ready_tasks};

#[tokio::test(start_paused = true)]
async fn idle_session_is_revived_by_its_next_request() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(
        (harness.registry.stats().attached, harness.registry.stats().dormant),
        (0, 1)
    );
    assert_eq!(harness.spawner.running(), 0);
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.registry.stats().attached, 1);
    let snapshot = harness.spawner.last_order().snapshot.expect("a snapshot");
    assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
}

#[tokio::test(start_paused = true)]
async fn idle_backend_is_stopped_unless_a_request_is_in_flight() {
    let harness = Harness::new(durable()).await;
    let (idle, busy) = (harness.open("ann/x").await, harness.open("bob/x").await);
    let stream = harness.post("bob/x", Some(&busy), &rpc("2", "stream")).await;
    let _listening = harness.listen("ann/x", &idle).await;
    sleep(Duration::from_secs(15 * 60 + 31)).await;
    assert_eq!(
        (harness.registry.stats().attached, harness.registry.stats().dormant),
        (1, 1)
    );
    assert_eq!(harness.spawner.backends()[0].stop_count(), 1);
    drop(stream);
    sleep(Duration::from_secs(15 * 60 + 31)).await;
    assert_eq!(harness.registry.stats().dormant, 2);
}

#[tokio::test(start_paused = true)]
async fn dormant_session_is_bound_to_its_grant() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(20 * 60)).await;
    assert_eq!(harness.ping("ann/y", &id).await.0, 403);
    assert_eq!(harness.ping("ann/x", &"0".repeat(48)).await.0, 410);
    assert_eq!(harness.registry.stats().dormant, 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_requests_share_one_revival() {
    let harness = Harness::manual(durable()).await;
    let id = harness.open_manually("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    let clients: Vec<_> = (0..50).map(|_| harness.ping_in_background("ann/x", &id)).collect();
    run_ready_tasks().await;
    assert_eq!(harness.spawner.spawn_count(), 2, "one spawn for all of them");
    // Most clients disconnect, also the one that began the revival. The revival continues.
    let remaining = harness.ping_in_background("ann/x", &id);
    run_ready_tasks().await;
    drop(clients);
    run_ready_tasks().await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    assert_eq!(remaining.output().await.0, 200);
    assert_eq!(harness.spawner.spawn_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn crash_fails_only_the_requests_in_flight() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    let request = harness.exchange_in_background("ann/x", Some(&id), &rpc("5", "slow"));
    run_ready_tasks().await;
    harness.spawner.last_backend().die();
    let (status, body) = request.output().await;
    assert!(status == 200 && body.contains(r#""id":5,"error""#), "{body}");
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.spawner.spawn_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn dead_backend_gets_no_request_before_its_death_is_noticed() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    // No task has run since the death.
    harness.spawner.last_backend().die();
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn request_that_a_dead_backend_did_not_read_goes_to_the_next_one() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    harness.must_answer("ann/x", &id).await;
    let first = harness.spawner.last_backend();
    first.die_unnoticed();
    harness.must_answer("ann/x", &id).await;
    assert!(first.has_exited() && harness.spawner.spawn_count() == 2);
}

#[tokio::test(start_paused = true)]
async fn request_that_a_dead_backend_may_have_read_is_not_repeated() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    let (_, body) = harness.exchange("ann/x", Some(&id), &rpc("5", "dies")).await;
    assert!(body.contains(r#""id":5,"error""#), "{body}");
    assert_eq!(harness.spawner.spawn_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn crash_loop_backs_off_until_a_backend_answers() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    let mut waits = Vec::new();
    for _ in 0..6 {
        // Each backend dies of its first request.
        let response = harness.post("ann/x", Some(&id), &rpc("9", "dies")).await;
        assert_eq!(response.status(), 200);
        run_ready_tasks().await;
        let before = harness.spawner.spawn_count();
        let response = harness.post("ann/x", Some(&id), &rpc("9", "dies")).await;
        if response.status() != 503 {
            run_ready_tasks().await;
            continue;
        }
        assert_eq!(
            harness.spawner.spawn_count(),
            before,
            "no spawn before the backoff is over"
        );
        let retry_after = response.headers()["retry-after"].to_str().expect("text");
        let wait = retry_after.parse().expect("a number");
        let body = body_text(response).await;
        assert!(body.contains(r#""id":9"#) && body.contains("keeps crashing"), "{body}");
        waits.push(wait);
        sleep(Duration::from_secs(wait)).await;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16]);
    assert_eq!(harness.event_count(Event::BackedOff), 5);
    // Deaths of backends that have answered a request are no crash loop.
    for _ in 0..10 {
        harness.must_answer("ann/x", &id).await;
        harness.spawner.last_backend().die();
        run_ready_tasks().await;
    }
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn crash_loop_goes_on_after_202_and_429() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    for _ in 0..3 {
        // The first backend has answered `initialize`, the second and the third nothing.
        assert_eq!(harness.exchange("ann/x", Some(&id), cancelled).await.0, 202);
        assert_eq!(harness.exchange("ann/x", Some(&id), &rpc("9", "busy")).await.0, 429);
        harness.spawner.last_backend().die();
        run_ready_tasks().await;
    }
    assert_eq!(harness.ping("ann/x", &id).await.0, 503);
}

#[tokio::test(start_paused = true)]
async fn failed_revival_is_answered_with_the_request_id_and_keeps_the_session() {
    for (outcome, expected) in [(SpawnOutcome::Failed, 502), (SpawnOutcome::Unavailable, 503)] {
        let harness = Harness::manual(durable()).await;
        let id = harness.open_manually("ann/x").await;
        harness.spawner.last_backend().die();
        run_ready_tasks().await;
        for (outcome, expected) in [(outcome, expected), (SpawnOutcome::Ready, 200)] {
            let ping = harness.ping_in_background("ann/x", &id);
            run_ready_tasks().await;
            assert!(harness.spawner.resolve_last(outcome));
            let (status, body) = ping.output().await;
            assert_eq!(status, expected, "{body}");
            assert!(body.contains(r#""id":77"#) && !body.contains("SECRET"), "{body}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn revival_that_requires_a_sign_in_ends_all_sessions_of_the_user() {
    let harness = Harness::manual(durable()).await;
    let id = harness.open_manually("ann/x").await;
    let other = harness.open_manually("ann/y").await;
    harness.spawner.backends()[0].die();
    run_ready_tasks().await;
    let ping = harness.ping_in_background("ann/x", &id);
    run_ready_tasks().await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Credentials));
    assert_eq!(ping.output().await.0, 401);
    run_ready_tasks().await;
    assert_eq!(harness.ping("ann/y", &other).await.0, 404);
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn unused_session_ends_after_its_retention() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(RETAIN - Duration::from_secs(60)).await;
    harness.must_answer("ann/x", &id).await;
    sleep(RETAIN - Duration::from_secs(60)).await;
    assert_eq!(harness.registry.stats().dormant, 1);
    sleep(Duration::from_secs(120)).await;
    assert_eq!(harness.ping("ann/x", &id).await.0, 404);
    sleep(Duration::from_secs(1)).await;
    assert!(lock(&harness.records.rows).is_empty());
}

#[tokio::test(start_paused = true)]
async fn new_session_evicts_the_longest_dormant_one() {
    let harness = Harness::new(Config {
        max_sessions_per_user: 2,
        ..durable()
    })
    .await;
    let oldest = harness.open("ann/x").await;
    sleep(Duration::from_secs(60)).await;
    let newer = harness.open("ann/x").await;
    let refused = harness.initialize("ann/x").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS, "both are attached");
    sleep(Duration::from_secs(20 * 60)).await;
    let newest = harness.open("ann/x").await;
    assert_eq!(harness.ping("ann/x", &oldest).await.0, 404);
    harness.must_answer("ann/x", &newer).await;
    harness.must_answer("ann/x", &newest).await;
    let refused = harness.initialize("ann/x").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(harness.event_count(Event::Ended(EndReason::Evicted)), 1);
}

#[tokio::test(start_paused = true)]
async fn session_is_not_evicted_during_its_revival() {
    let harness = Harness::manual(Config {
        max_sessions_per_user: 1,
        ..durable()
    })
    .await;
    let id = harness.open_manually("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    let ping = harness.ping_in_background("ann/x", &id);
    run_ready_tasks().await;
    let refused = harness.initialize("ann/x").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    assert_eq!(ping.output().await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn revocation_ends_dormant_sessions_and_revivals() {
    let harness = Harness::manual(durable()).await;
    let dormant = harness.open_manually("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    let reviving = harness.open_manually("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    let ping = harness.ping_in_background("ann/x", &reviving);
    run_ready_tasks().await;
    harness.registry.end_user(&UserId("ann".into())).await;
    assert_eq!(ping.output().await.0, 401);
    assert_eq!(harness.ping("ann/x", &dormant).await.0, 404);
    assert_eq!(harness.registry.stats(), Stats::default());
    sleep(Duration::from_secs(1)).await;
    assert!(lock(&harness.records.rows).is_empty());
}
