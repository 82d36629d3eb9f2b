//! Quotas of sessions, in total and for each user: exact under races, and answered so that the user
//! can act.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use session::{Config, Stats, testing::SpawnOutcome};
use tokio::task::JoinSet;

use crate::harness::{Harness, body_text, rpc, run_ready_tasks, session_id};

fn config(max_sessions: usize, max_sessions_per_user: usize) -> Config {
    Config {
        max_sessions,
        max_sessions_per_user,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn exceeded_user_quota_is_429_with_the_sessions_of_the_user() {
    let harness = Harness::plain(config(10, 2));
    harness.open("ann/x").await;
    let first = harness.spawner.last_order().tag;
    tokio::time::sleep(Duration::from_secs(100)).await;
    let busy = harness.open("ann/y").await;
    let second = harness.spawner.last_order().tag;
    let _stream = harness.post("ann/y", Some(&busy), &rpc("2", "stream")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;

    let response = harness.post("ann/x", None, &rpc("9", "initialize")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    // The first session has been idle for 120 s of the 900 s after which it is reaped.
    assert_eq!(response.headers()["retry-after"], "780");
    let body: serde_json::Value = serde_json::from_str(&body_text(response).await).expect("JSON");
    assert_eq!(body["id"], 9);
    let expected = serde_json::json!({"limit": 2, "sessions": [
        {"tag": &*first, "ageSeconds": 120, "idleSeconds": 120},
        {"tag": &*second, "ageSeconds": 20},
    ]});
    assert_eq!(body["error"]["data"], expected);
    assert_eq!(harness.spawner.spawn_count(), 2, "the refused request spawns nothing");
    harness.open("bob/x").await;
}

#[tokio::test(start_paused = true)]
async fn exceeded_total_quota_is_503_with_retry_after() {
    let harness = Harness::plain(config(2, 2));
    harness.open("ann/x").await;
    harness.open("bob/x").await;
    let response = harness.initialize("eve/x").await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "30");
    assert!(body_text(response).await.contains(r#""id":1"#));
    assert_eq!(harness.spawner.spawn_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn backend_counts_until_it_has_stopped() {
    let harness = Harness::plain(config(1, 1));
    let id = harness.open("ann/x").await;
    harness.spawner.hold_stops(true);
    assert_eq!(harness.delete("ann/x", &id).await, StatusCode::NO_CONTENT);
    run_ready_tasks().await;
    assert_eq!(
        harness.registry.stats(),
        Stats {
            stopping: 1,
            ..Stats::default()
        }
    );
    assert_eq!(
        harness.initialize("ann/x").await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    harness.spawner.hold_stops(false);
    run_ready_tasks().await;
    harness.open("ann/x").await;
    assert_eq!(harness.spawner.peak_running(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_starts_do_not_count() {
    let harness = Harness::plain_with_outcome(config(1, 1), SpawnOutcome::Failed);
    for _ in 0..5 {
        assert_eq!(harness.initialize("ann/x").await.status(), StatusCode::BAD_GATEWAY);
        tokio::time::sleep(Config::default().max_backoff).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousand_concurrent_openings_reach_the_quotas_and_exceed_none() {
    let harness = Harness::plain(config(40, 7));
    let mut clients = JoinSet::new();
    for number in 0..1000 {
        let user = number % 10;
        let request = harness.request(
            http::Method::POST,
            &format!("user{user}/x"),
            None,
            &rpc("1", "initialize"),
        );
        let registry = Arc::clone(&harness.registry);
        clients.spawn(async move {
            let response = registry.serve(request).await.response;
            (user, response.status().as_u16(), session_id(&response).is_some())
        });
    }
    let mut opened = [0; 10];
    while let Some(client) = clients.join_next().await {
        let (user, status, has_id) = client.expect("no panic");
        assert!(matches!(status, 200 | 429 | 503), "{status}");
        assert_eq!(has_id, status == 200);
        opened[user] += usize::from(has_id);
    }
    assert_eq!(opened.iter().sum::<usize>(), 40);
    assert!(opened.iter().all(|count| *count <= 7), "{opened:?}");
    assert_eq!(harness.spawner.spawn_count(), 40);
    assert_eq!(harness.spawner.peak_running(), 40);
    harness.registry.stop().await;
    assert_eq!(harness.spawner.running(), 0);
}
