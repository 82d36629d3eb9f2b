//! The ends of a session: deletion, death of its backend, idleness, revocation and shutdown.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use session::{
    Config, Stats,
    ports::{AuthenticatedAt, GrantId, UserId},
    testing::SpawnOutcome,
};
use tokio::time::{Instant, sleep};

use crate::harness::{Harness, body_text, in_background, rpc, run_ready_tasks};

const MINUTE: Duration = Duration::from_secs(60);

fn grant(name: &str) -> GrantId {
    GrantId(name.into())
}

#[tokio::test(start_paused = true)]
async fn delete_ends_the_session_without_waiting_for_its_backend() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    harness.spawner.hold_stops(true);
    let response = harness.send(Method::DELETE, "ann/x", Some(&id), "").await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(body_text(response).await, "");
    harness.must_be(404, "ann/x", &id).await;
    assert_eq!(harness.delete("ann/x", &id).await, StatusCode::NOT_FOUND);
    run_ready_tasks().await;
    assert_eq!(harness.spawner.last_backend().stop_count(), 1);
    harness.spawner.hold_stops(false);
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn dead_backend_ends_its_session_and_answers_pending_requests() {
    let harness = Harness::plain(Config::default());
    let (id, other) = (harness.open("ann/x").await, harness.open("ann/x").await);
    let request = harness.exchange_in_background("ann/x", Some(&id), &rpc("5", "slow"));
    run_ready_tasks().await;
    harness.spawner.backends()[0].die();
    let (status, body) = request.output().await;
    assert_eq!(status, 200);
    assert!(body.contains(r#""id":5,"error""#), "{body}");
    run_ready_tasks().await;
    harness.must_be(404, "ann/x", &id).await;
    // Other sessions are not affected.
    harness.must_be(200, "ann/x", &other).await;
    assert_eq!(
        harness.registry.stats(),
        Stats {
            attached: 1,
            ..Stats::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn idle_session_is_reaped_and_its_backend_stopped() {
    let harness = Harness::plain(Config::default());
    let (idle, used) = (harness.open("ann/x").await, harness.open("ann/x").await);
    sleep(10 * MINUTE).await;
    harness.must_be(200, "ann/x", &used).await;
    sleep(5 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(harness.registry.stats().attached, 2);
    sleep(Duration::from_secs(31)).await;
    harness.must_be(404, "ann/x", &idle).await;
    harness.must_be(200, "ann/x", &used).await;
    assert_eq!(harness.spawner.backends()[0].stop_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn request_keeps_its_session_active_until_the_response_body_ends() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    let response = harness.post("ann/x", Some(&id), &rpc("2", "stream")).await;
    sleep(60 * MINUTE).await;
    assert_eq!(harness.registry.stats().attached, 1, "the body has not ended");
    harness.spawner.last_backend().close_streams();
    assert!(response.into_body().collect().await.is_ok());
    sleep(14 * MINUTE).await;
    assert_eq!(harness.registry.stats().attached, 1, "idle since the end of the body");
    sleep(2 * MINUTE).await;
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn abandoned_request_no_longer_keeps_its_session_active() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    let request = harness.exchange_in_background("ann/x", Some(&id), &rpc("5", "slow"));
    sleep(60 * MINUTE).await;
    assert_eq!(harness.registry.stats().attached, 1);
    drop(request);
    sleep(16 * MINUTE).await;
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn listening_stream_does_not_keep_its_session_active() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    sleep(14 * MINUTE).await;
    let stream = harness.listen("ann/x", &id).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    sleep(14 * MINUTE).await;
    assert_eq!(
        harness.registry.stats().attached,
        1,
        "the start of the stream counts as activity"
    );
    sleep(2 * MINUTE).await;
    assert_eq!(harness.registry.stats(), Stats::default());
    assert!(stream.into_body().collect().await.is_ok(), "the stream ends cleanly");
}

#[tokio::test(start_paused = true)]
async fn revoked_grant_ends_its_sessions_and_waits_for_their_backends() {
    let harness = Harness::plain(Config::default());
    let (a, b) = (harness.open("ann/x").await, harness.open("ann/y").await);
    harness.spawner.hold_stops(true);
    let ended = harness.registry.end_grant(&grant("ann/x"));
    // The session ends before the future is polled.
    harness.must_be(404, "ann/x", &a).await;
    harness.must_be(200, "ann/y", &b).await;
    let mut waiting = in_background(ended);
    run_ready_tasks().await;
    assert!(waiting.try_output().is_none(), "the backend still runs");
    harness.spawner.hold_stops(false);
    waiting.output().await;
    assert_eq!(harness.spawner.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn revoked_user_loses_the_sessions_of_all_grants() {
    let harness = Harness::plain(Config::default());
    let (a, b) = (harness.open("ann/x").await, harness.open("ann/y").await);
    let c = harness.open("bob/x").await;
    harness.registry.end_user(&UserId("ann".into())).await;
    harness.must_be(404, "ann/x", &a).await;
    harness.must_be(404, "ann/y", &b).await;
    harness.must_be(200, "bob/x", &c).await;
}

#[tokio::test(start_paused = true)]
async fn revocation_ends_an_opening_session() {
    for outcome in [None, Some(SpawnOutcome::IgnoresInitialize)] {
        let harness = Harness::plain_manual(Config::default());
        let initialize = harness.serve_initialize_in_background("ann/x");
        run_ready_tasks().await;
        if let Some(outcome) = outcome {
            assert!(harness.spawner.resolve_last(outcome));
            run_ready_tasks().await;
        }
        harness.registry.end_grant(&grant("ann/x")).await;
        let served = initialize.output().await;
        assert!(served.response.headers().get("mcp-session-id").is_none());
        assert_eq!(served.response.status(), StatusCode::UNAUTHORIZED);
        assert!(served.sign_in_required);
        assert_eq!(
            (harness.registry.stats(), harness.spawner.running()),
            (Stats::default(), 0)
        );
    }
}

/// The spawn fails because the grant has ended. Both are known when the answer is made.
#[tokio::test(start_paused = true)]
async fn failed_start_after_a_revocation_is_401() {
    for outcome in [
        SpawnOutcome::Failed,
        SpawnOutcome::Unavailable,
        SpawnOutcome::DiesAtInitialize,
    ] {
        let harness = Harness::plain_manual(Config::default());
        let initialize = harness.serve_initialize_in_background("ann/x");
        run_ready_tasks().await;
        assert!(harness.spawner.resolve_last(outcome));
        drop(harness.registry.end_user(&UserId("ann".into())));
        let served = initialize.output().await;
        assert_eq!(served.response.status(), StatusCode::UNAUTHORIZED, "{outcome:?}");
        assert!(served.sign_in_required);
        run_ready_tasks().await;
        assert_eq!(
            (harness.registry.stats(), harness.spawner.running()),
            (Stats::default(), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn request_authenticated_before_a_revocation_opens_no_session() {
    let harness = Harness::plain(Config::default());
    let authenticated_now = |who| {
        let mut request = harness.request(Method::POST, who, None, &rpc("1", "initialize"));
        request.extensions_mut().insert(AuthenticatedAt(Instant::now()));
        request
    };
    // The grant or the user is revoked between the authentication and the arrival of the whole
    // request.
    let (of_grant, of_user, other) = (
        authenticated_now("ann/x"),
        authenticated_now("bob/x"),
        authenticated_now("ann/y"),
    );
    sleep(Duration::from_secs(1)).await;
    harness.registry.end_grant(&grant("ann/x")).await;
    harness.registry.end_user(&UserId("bob".into())).await;
    sleep(Duration::from_secs(1)).await;
    for late in [of_grant, of_user] {
        let served = harness.registry.serve(late).await;
        assert_eq!(served.response.status(), StatusCode::UNAUTHORIZED);
        assert!(served.sign_in_required);
    }
    assert_eq!(
        (harness.spawner.spawn_count(), harness.registry.stats()),
        (0, Stats::default())
    );
    let status = harness.registry.serve(other).await.response.status();
    assert_eq!(status, StatusCode::OK, "another grant of the user");
    // A new sign-in comes after the revocation.
    let again = authenticated_now("bob/x");
    assert_eq!(harness.registry.serve(again).await.response.status(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_all_sessions_in_parallel_and_refuses_new_requests() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    for _ in 0..9 {
        harness.open("ann/x").await;
    }
    harness.spawner.hold_stops(true);
    let stops: Vec<_> = (0..2)
        .map(|_| {
            let registry = std::sync::Arc::clone(&harness.registry);
            in_background(async move { registry.stop().await })
        })
        .collect();
    run_ready_tasks().await;
    let backends = harness.spawner.backends();
    assert!(
        backends.iter().all(|backend| backend.stop_count() == 1),
        "all are stopped before the first has exited"
    );
    for id in [None, Some(id.as_str())] {
        let response = harness.post("ann/x", id, &rpc("3", "initialize")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key("retry-after"));
        assert!(body_text(response).await.contains(r#""id":3"#));
    }
    harness.spawner.hold_stops(false);
    for stop in stops {
        stop.output().await;
    }
    assert_eq!(
        (harness.registry.stats(), harness.spawner.running()),
        (Stats::default(), 0)
    );
    harness.registry.stop().await;
    assert_eq!(harness.spawner.spawn_count(), 10);
}

#[tokio::test(start_paused = true)]
async fn stop_returns_at_its_deadline() {
    let harness = Harness::plain(Config::default());
    harness.open("ann/x").await;
    harness.spawner.hold_stops(true);
    let before = Instant::now();
    harness.registry.stop().await;
    assert_eq!(before.elapsed(), Config::default().stop_deadline);
    assert_eq!(harness.registry.stats().stopping, 1);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_an_opening_session() {
    let harness = Harness::plain_manual(Config::default());
    let initialize = harness.exchange_in_background("ann/x", None, &rpc("4", "initialize"));
    run_ready_tasks().await;
    harness.registry.stop().await;
    let (status, body) = initialize.output().await;
    assert_eq!(status, 503);
    assert!(body.contains(r#""id":4"#), "{body}");
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn forgotten_ended_ids_are_unknown() {
    let harness = Harness::plain(Config {
        tombstones: 2,
        ..Config::default()
    });
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = harness.open("ann/x").await;
        harness.delete("ann/x", &id).await;
        run_ready_tasks().await;
        ids.push(id);
    }
    for (id, status) in ids.iter().zip([410, 404, 404]) {
        harness.must_be(status, "ann/x", id).await;
    }
}
