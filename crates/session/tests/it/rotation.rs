//! Rotation: a session gets a new backend before the credential of its backend expires.

use std::time::Duration;

use http_body_util::BodyExt;
use session::{
    Config, Stats,
    ports::{EndReason, Event, UserId},
    testing::{RefreshOutcome, SpawnOutcome},
};
use tokio::time::sleep;

use crate::harness::{Harness, INITIALIZED, LIFETIME, RETAIN, durable, rpc, run_ready_tasks, session_id};

/// Just before the refresh lead begins.
const BEFORE_LEAD: Duration = Duration::from_secs(54 * 60);
/// From then until the rotator has run.
const LEAD: Duration = Duration::from_secs(4 * 60);

/// Sessions are never idle.
fn config() -> Config {
    Config {
        idle_timeout: LIFETIME * 100,
        start_timeout: Duration::from_secs(10 * 60),
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn one_refresh_rotates_all_sessions_of_a_user() {
    let harness = Harness::new(config()).await;
    let (a, b, c) = (
        harness.open("ann/x").await,
        harness.open("ann/y").await,
        harness.open("bob/x").await,
    );
    sleep(BEFORE_LEAD).await;
    assert_eq!(harness.spawner.spawn_count(), 3);
    sleep(LEAD).await;
    assert_eq!(harness.spawner.spawn_count(), 6);
    assert_eq!(harness.credentials("ann").refresh_count(), 1);
    assert_eq!(harness.credentials("bob").refresh_count(), 1);
    assert_eq!(harness.spawner.running(), 3, "the old backends have exited");
    assert_eq!(harness.registry.stats().attached, 3);
    for (who, id) in [("ann/x", &a), ("ann/y", &b), ("bob/x", &c)] {
        harness.must_answer(who, id).await;
        // A client that initializes again keeps its session id.
        let again = harness.post(who, Some(id), &rpc("3", "initialize")).await;
        assert_eq!((again.status().as_u16(), session_id(&again)), (200, None));
    }
    for order in &harness.spawner.orders()[3..] {
        let snapshot = order.snapshot.clone().expect("a snapshot");
        assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    }
    sleep(LIFETIME).await;
    assert_eq!(harness.spawner.spawn_count(), 9, "the next rotation");
}

#[tokio::test(start_paused = true)]
async fn new_backend_is_attached_before_the_old_one_stops_and_requests_in_flight_finish() {
    let harness = Harness::manual(config()).await;
    let id = harness.open_manually("ann/x").await;
    let old = harness.spawner.last_backend();
    let call = harness.exchange_in_background("ann/x", Some(&id), &rpc("5", "slow"));
    let stream = harness.listen("ann/x", &id).await;
    sleep(BEFORE_LEAD + LEAD).await;
    // The old backend serves while the new one starts.
    assert_eq!(harness.spawner.spawn_count(), 2);
    harness.must_answer("ann/x", &id).await;
    assert_eq!(old.requests().len(), 5);
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    run_ready_tasks().await;
    let new = harness.spawner.last_backend();
    harness.must_answer("ann/x", &id).await;
    assert_eq!((old.requests().len(), new.requests().len()), (5, 1));
    assert!(
        stream.into_body().collect().await.is_ok(),
        "a listening stream on the old backend ends cleanly"
    );
    assert!(!old.has_exited(), "a call is in flight on it");
    assert!(old.answer_slow());
    assert!(call.output().await.1.contains(r#""id":5,"result""#));
    run_ready_tasks().await;
    assert!(old.has_exited() && !new.has_exited());
    // The exit of the old backend does not detach the new one.
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn death_of_a_replaced_backend_does_not_detach_the_new_one() {
    let harness = Harness::new(config()).await;
    let id = harness.open("ann/x").await;
    let old = harness.spawner.last_backend();
    harness.spawner.hold_stops(true);
    sleep(BEFORE_LEAD + LEAD).await;
    assert_eq!(harness.spawner.running(), 2, "the old backend is stopping");
    old.die();
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats().attached, 1);
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn request_that_outlasts_the_rotation_grace_is_cut_off() {
    let harness = Harness::new(config()).await;
    let id = harness.open("ann/x").await;
    let mut call = harness.exchange_in_background("ann/x", Some(&id), &rpc("5", "slow"));
    sleep(BEFORE_LEAD + LEAD).await;
    assert!(call.try_output().is_none());
    sleep(config().rotate_grace).await;
    let (_, body) = call.output().await;
    assert!(body.contains(r#""id":5,"error""#), "{body}");
}

#[tokio::test(start_paused = true)]
async fn failed_spawn_keeps_the_old_backend_and_is_retried() {
    let harness = Harness::manual(config()).await;
    let id = harness.open_manually("ann/x").await;
    sleep(BEFORE_LEAD + LEAD).await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Failed));
    run_ready_tasks().await;
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.spawner.running(), 1);
    sleep(Duration::from_secs(90)).await;
    assert_eq!(harness.spawner.spawn_count(), 3, "before the old credential expires");
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    run_ready_tasks().await;
    assert_eq!(harness.event_count(Event::Rotated), 1);
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn terminal_refresh_failure_ends_the_sessions_of_that_user() {
    let harness = Harness::new(Config {
        retain: RETAIN,
        ..config()
    })
    .await;
    let (id, other) = (harness.open("ann/x").await, harness.open("bob/x").await);
    let credentials = harness.credentials("ann");
    credentials.set_refresh_outcome(RefreshOutcome::Terminal);
    sleep(BEFORE_LEAD + LEAD).await;
    assert_eq!(harness.ping("ann/x", &id).await.0, 404);
    harness.must_answer("bob/x", &other).await;
    assert_eq!(harness.event_count(Event::Ended(EndReason::Revoked)), 1);
    assert_eq!(harness.spawner.running(), 1);
    let orders = harness.spawner.orders();
    let spawns = orders.iter().filter(|order| &*order.caller.user.0 == "ann");
    assert_eq!(spawns.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn transient_refresh_failure_detaches_the_backend_at_expiry_only() {
    for (retain, after_expiry) in [(Duration::ZERO, 404), (RETAIN, 503)] {
        let harness = Harness::new(Config { retain, ..config() }).await;
        let id = harness.open("ann/x").await;
        let credentials = harness.credentials("ann");
        credentials.set_refresh_outcome(RefreshOutcome::Transient);
        sleep(BEFORE_LEAD + LEAD).await;
        harness.must_answer("ann/x", &id).await;
        assert_eq!(harness.spawner.spawn_count(), 1);
        let refreshes = credentials.refresh_count();
        assert!((1..6).contains(&refreshes), "{refreshes}");
        sleep(Duration::from_secs(5 * 60)).await;
        assert_eq!(harness.spawner.running(), 0);
        assert_eq!(harness.ping("ann/x", &id).await.0, after_expiry);
        credentials.set_refresh_outcome(RefreshOutcome::Renewed);
        let renewed = if retain.is_zero() { 404 } else { 200 };
        assert_eq!(
            harness.ping("ann/x", &id).await.0,
            renewed,
            "a retained session is revived with the new credential"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn transient_refresh_failure_is_retried() {
    let harness = Harness::new(config()).await;
    let id = harness.open("ann/x").await;
    let credentials = harness.credentials("ann");
    credentials.set_refresh_outcome(RefreshOutcome::Transient);
    sleep(BEFORE_LEAD + LEAD).await;
    credentials.set_refresh_outcome(RefreshOutcome::Renewed);
    sleep(Duration::from_secs(3 * 60)).await;
    assert_eq!(harness.spawner.spawn_count(), 2);
    harness.must_answer("ann/x", &id).await;
}

#[tokio::test(start_paused = true)]
async fn new_sign_in_rotates_attached_sessions_to_its_credential() {
    let harness = Harness::new(durable()).await;
    let (id, other) = (harness.open("ann/x").await, harness.open("bob/x").await);
    sleep(Duration::from_secs(60)).await;
    harness.credentials("ann").replace();
    harness.registry.rotate_user(&UserId("ann".into()));
    run_ready_tasks().await;
    assert_eq!(harness.spawner.spawn_count(), 3);
    assert_eq!(
        harness.credentials("ann").refresh_count(),
        0,
        "the new credential needs no refresh"
    );
    harness.must_answer("ann/x", &id).await;
    harness.must_answer("bob/x", &other).await;
}

#[tokio::test(start_paused = true)]
async fn slow_refresh_of_one_user_delays_no_other_user() {
    let harness = Harness::new(config()).await;
    let (slow, quick) = (harness.open("ann/x").await, harness.open("bob/x").await);
    let delay = Duration::from_secs(600);
    harness.credentials("ann").set_refresh_delay(delay);
    sleep(BEFORE_LEAD + LEAD).await;
    assert_eq!(harness.spawner.spawn_count(), 3, "the other user's session is rotated");
    harness.must_answer("ann/x", &slow).await;
    harness.must_answer("bob/x", &quick).await;
}

#[tokio::test(start_paused = true)]
async fn handshake_that_continues_during_a_rotation_is_not_lost() {
    let harness = Harness::manual(config()).await;
    let initialize = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    let id = session_id(&initialize.output().await).expect("an id");
    sleep(BEFORE_LEAD + LEAD).await;
    assert_eq!(harness.spawner.spawn_count(), 2);
    drop(harness.post("ann/x", Some(&id), INITIALIZED).await);
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    run_ready_tasks().await;
    assert_eq!(harness.spawner.spawn_count(), 3, "the first one has an old snapshot");
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    run_ready_tasks().await;
    let snapshot = harness.spawner.last_order().snapshot.expect("a snapshot");
    assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.spawner.running(), 1);
}

#[tokio::test(start_paused = true)]
async fn deletion_or_revocation_during_a_rotation_leaves_no_backend() {
    for revoke in [false, true] {
        for resolve_first in [true, false] {
            let harness = Harness::manual(config()).await;
            let id = harness.open_manually("ann/x").await;
            sleep(BEFORE_LEAD + LEAD).await;
            assert_eq!(harness.spawner.spawn_count(), 2);
            if resolve_first {
                assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
            }
            if revoke {
                harness.registry.end_user(&UserId("ann".into())).await;
            } else {
                harness.delete("ann/x", &id).await;
            }
            run_ready_tasks().await;
            if !resolve_first {
                assert!(
                    !harness.spawner.resolve_last(SpawnOutcome::Ready),
                    "the spawn was dropped"
                );
            }
            assert_eq!(
                (harness.registry.stats(), harness.spawner.running()),
                (Stats::default(), 0)
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn backend_that_dies_during_its_rotation_is_revived_on_request_only() {
    let harness = Harness::manual(Config {
        retain: RETAIN,
        ..config()
    })
    .await;
    let id = harness.open_manually("ann/x").await;
    sleep(BEFORE_LEAD + LEAD).await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    assert!(
        !harness.spawner.resolve_last(SpawnOutcome::Ready),
        "a dormant session is not rotated"
    );
    run_ready_tasks().await;
    assert_eq!(harness.spawner.running(), 0);
    let ping = harness.ping_in_background("ann/x", &id);
    run_ready_tasks().await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    assert_eq!(ping.output().await.0, 200);
    assert_eq!(harness.spawner.running(), 1);
}
