//! A credential that the user has revoked at the upstream: a backend fails at its start, and the
//! refresh tells why.

use std::time::Duration;

use http::{Method, StatusCode};
use session::{
    Config, Stats,
    ports::Event,
    testing::{RefreshOutcome, ScriptedSpawner, SpawnOutcome},
};

use crate::harness::{Harness, durable, rpc, run_ready_tasks, session_id};

const RENEWAL_PAUSE: Duration = Duration::from_secs(300);

fn config() -> Config {
    Config {
        renewal_pause: RENEWAL_PAUSE,
        ..durable()
    }
}

async fn with_outcome(outcome: SpawnOutcome) -> Harness {
    Harness::with_spawner(config(), ScriptedSpawner::immediate(outcome)).await
}

/// The status of an `initialize`, and whether a sign-in is required.
async fn initialize(harness: &Harness, who: &str) -> (u16, bool) {
    let served = harness.serve(Method::POST, who, None, &rpc("1", "initialize")).await;
    let (response, sign_in_required) = (served.response, served.sign_in_required);
    let status = response.status().as_u16();
    assert_eq!(session_id(&response).is_some(), status == 200);
    drop(response);
    run_ready_tasks().await;
    (status, sign_in_required)
}

#[tokio::test(start_paused = true)]
async fn revoked_credential_is_401_at_the_next_opening_and_ends_the_sessions_of_the_user() {
    let harness = Harness::new(config()).await;
    let id = harness.open("ann/x").await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    credentials.set_refresh_outcome(RefreshOutcome::Terminal);
    assert_eq!(initialize(&harness, "ann/y").await, (401, true));
    assert_eq!(credentials.refresh_count(), 1);
    assert_eq!(harness.ping("ann/x", &id).await.0, 404);
    run_ready_tasks().await;
    assert_eq!(
        (harness.registry.stats(), harness.spawner.running()),
        (Stats::default(), 0)
    );
}

#[tokio::test(start_paused = true)]
async fn revoked_credential_is_401_at_a_revival() {
    let harness = Harness::new(config()).await;
    let id = harness.open("ann/x").await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    credentials.set_refresh_outcome(RefreshOutcome::Terminal);
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    let served = harness.serve(Method::POST, "ann/x", Some(&id), &rpc("2", "ping")).await;
    assert_eq!(served.response.status(), StatusCode::UNAUTHORIZED);
    assert!(served.sign_in_required);
    assert_eq!(
        (credentials.refresh_count(), harness.registry.stats()),
        (1, Stats::default())
    );
}

#[tokio::test(start_paused = true)]
async fn renewed_credential_lets_the_opening_and_the_revival_succeed() {
    // At the quota, too: the failed backend has released its place before the next one starts.
    let harness = Harness::new(Config {
        max_sessions: 1,
        max_sessions_per_user: 1,
        ..config()
    })
    .await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    let id = harness.open("ann/x").await;
    harness.must_answer("ann/x", &id).await;
    assert_eq!((credentials.refresh_count(), harness.spawner.spawn_count()), (1, 2));
    // The same at a revival, after the pause between renewals.
    tokio::time::sleep(RENEWAL_PAUSE).await;
    credentials.revoke_upstream();
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    harness.must_answer("ann/x", &id).await;
    assert_eq!(credentials.refresh_count(), 2);
    let revived = |event: &Event| matches!(event, Event::Revived(_));
    assert_eq!(harness.take_events().into_iter().filter(revived).count(), 1);
    assert_eq!(harness.spawner.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn transient_refresh_failure_leaves_the_start_failed() {
    let harness = Harness::new(config()).await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    credentials.set_refresh_outcome(RefreshOutcome::Transient);
    assert_eq!(initialize(&harness, "ann/x").await, (502, false));
    assert_eq!((credentials.refresh_count(), harness.spawner.spawn_count()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn server_that_cannot_start_costs_one_refresh_for_each_pause() {
    // No delay of the next start is in the way.
    let config = Config {
        backoff: Duration::ZERO,
        ..config()
    };
    for outcome in [SpawnOutcome::Failed, SpawnOutcome::DiesAtInitialize] {
        let harness = Harness::with_spawner(config.clone(), ScriptedSpawner::immediate(outcome)).await;
        let credentials = harness.credentials("ann");
        for _ in 0..50 {
            assert_eq!(initialize(&harness, "ann/x").await, (502, false));
        }
        assert_eq!(
            (credentials.refresh_count(), harness.spawner.spawn_count()),
            (1, 51),
            "{outcome:?}"
        );
        tokio::time::sleep(RENEWAL_PAUSE - Duration::from_secs(1)).await;
        assert_eq!(initialize(&harness, "ann/x").await, (502, false));
        assert_eq!(credentials.refresh_count(), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..50 {
            assert_eq!(initialize(&harness, "ann/x").await, (502, false));
        }
        assert_eq!(credentials.refresh_count(), 2, "{outcome:?}");
        run_ready_tasks().await;
        assert_eq!(
            (harness.registry.stats(), harness.spawner.running()),
            (Stats::default(), 0)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn backends_that_renew_their_credentials_cause_no_refresh() {
    for outcome in [SpawnOutcome::Failed, SpawnOutcome::DiesAtInitialize] {
        let harness = with_outcome(outcome).await;
        harness.spawner.set_renews_credentials(true);
        assert_eq!(initialize(&harness, "ann/x").await, (502, false), "{outcome:?}");
        let credentials = harness.credentials("ann");
        assert_eq!((credentials.refresh_count(), harness.spawner.spawn_count()), (0, 1));
    }
    // Neither at a revival.
    let harness = Harness::new(config()).await;
    harness.spawner.set_renews_credentials(true);
    let id = harness.open("ann/x").await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    assert_eq!(harness.ping("ann/x", &id).await.0, 502);
    assert_eq!(credentials.refresh_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_a_backend_that_ends_at_its_start_causes_a_refresh() {
    for (outcome, status) in [
        (SpawnOutcome::Unavailable, 503),
        (SpawnOutcome::Credentials, 401),
        (SpawnOutcome::NotReady, 502),
        (SpawnOutcome::IgnoresInitialize, 502),
        (SpawnOutcome::RefusesInitialize, 200),
    ] {
        let harness = with_outcome(outcome).await;
        assert_eq!(harness.initialize("ann/x").await.status().as_u16(), status);
        assert_eq!(harness.credentials("ann").refresh_count(), 0, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_openings_share_one_refresh_and_all_succeed() {
    let harness = Harness::new(config()).await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    credentials.set_refresh_delay(Duration::from_secs(3));
    let openings: Vec<_> = (0..8)
        .map(|_| harness.serve_initialize_in_background("ann/x"))
        .collect();
    // A client that disconnects while it waits does not affect the others.
    let disconnecting = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    assert_eq!(credentials.refresh_count(), 1);
    drop(disconnecting);
    for opening in openings {
        let served = opening.output().await;
        assert_eq!(served.response.status(), StatusCode::OK);
        assert!(session_id(&served.response).is_some());
        assert!(!served.sign_in_required);
    }
    assert_eq!(credentials.refresh_count(), 1);
    run_ready_tasks().await;
    assert_eq!((harness.registry.stats().attached, harness.spawner.running()), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn stop_does_not_wait_for_a_refresh() {
    let harness = Harness::new(config()).await;
    let credentials = harness.credentials("ann");
    credentials.revoke_upstream();
    credentials.set_refresh_delay(Duration::from_secs(3600));
    let opening = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    assert_eq!(credentials.refresh_count(), 1);
    let before = tokio::time::Instant::now();
    harness.registry.stop().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    drop(opening.output().await);
}
