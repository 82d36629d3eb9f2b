//! Durable records: sessions and ended ids survive a restart, and changes are written behind.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::StatusCode;
use session::{Config, Stats, ports::UserId, testing::SpawnOutcome};
use tokio::time::sleep;

use crate::harness::{Harness, INITIALIZED, RETAIN, durable, lock, rpc, run_ready_tasks, session_id};

#[tokio::test(start_paused = true)]
async fn session_survives_a_restart() {
    let mut harness = Harness::new(durable()).await;
    let (id, deleted) = (harness.open("ann/x").await, harness.open("ann/x").await);
    harness.delete("ann/x", &deleted).await;
    harness.registry.stop().await;
    assert_eq!(harness.spawner.running(), 0);
    assert_eq!(harness.ping("ann/x", &id).await.0, 503);

    harness.restart().await;
    assert_eq!(
        (harness.registry.stats().attached, harness.registry.stats().dormant),
        (0, 1)
    );
    assert_eq!(
        harness.ping("bob/x", &id).await.0,
        403,
        "it is still bound to its grant"
    );
    assert_eq!(harness.spawner.spawn_count(), 2, "another grant does not revive it");
    harness.must_answer("ann/x", &id).await;
    assert_eq!(
        harness.ping("ann/x", &deleted).await.0,
        404,
        "an ended session stays ended"
    );
}

#[tokio::test(start_paused = true)]
async fn session_survives_idleness_crash_and_restart() {
    let mut harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(20 * 60)).await;
    harness.must_answer("ann/x", &id).await;
    harness.spawner.last_backend().die();
    harness.must_answer("ann/x", &id).await;
    harness.registry.stop().await;
    harness.restart().await;
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.spawner.spawn_count(), 4);
    for order in &harness.spawner.orders()[1..] {
        let snapshot = order.snapshot.clone().expect("a snapshot");
        assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    }
}

#[tokio::test(start_paused = true)]
async fn stop_keeps_the_records() {
    let harness = Harness::new(durable()).await;
    for who in ["ann/x", "bob/x", "eve/x"] {
        harness.open(who).await;
    }
    tokio::join!(harness.registry.stop(), harness.registry.stop());
    assert_eq!(harness.spawner.running(), 0);
    harness.registry.stop().await;
    assert_eq!(
        harness.initialize("ann/x").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(lock(&harness.records.rows).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn ended_ids_are_remembered_over_restarts_until_their_age_limit() {
    let mut harness = Harness::new(durable()).await;
    let (deleted, revoked) = (harness.open("ann/x").await, harness.open("bob/x").await);
    harness.delete("ann/x", &deleted).await;
    harness.registry.end_user(&UserId("bob".into())).await;
    // Its retention ends while no registry runs, so it ends at the next start.
    let expired = harness.open("ann/x").await;
    harness.registry.stop().await;
    sleep(RETAIN).await;
    for _ in 0..2 {
        harness.restart().await;
        for (who, id) in [("ann/x", &deleted), ("bob/x", &revoked), ("ann/x", &expired)] {
            assert_eq!(harness.ping(who, id).await.0, 404);
        }
        assert_eq!(harness.ping("ann/x", &"0".repeat(48)).await.0, 410);
        harness.registry.stop().await;
    }
    assert!(lock(&harness.records.rows).is_empty());
    sleep(durable().tombstone_age + Duration::from_secs(1)).await;
    harness.restart().await;
    assert_eq!(harness.ping("ann/x", &deleted).await.0, 410);
    assert!(lock(&harness.records.endings).is_empty());
}

#[tokio::test(start_paused = true)]
async fn records_of_ended_ids_are_bounded_by_number_and_age() {
    let mut harness = Harness::new(Config {
        tombstones: 3,
        ..durable()
    })
    .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = harness.open("ann/x").await;
        harness.delete("ann/x", &id).await;
        sleep(Duration::from_secs(1)).await;
        ids.push(id);
    }
    harness.registry.stop().await;
    harness.restart().await;
    for (id, status) in ids.iter().zip([410, 410, 404, 404, 404]) {
        harness.must_be(status, "ann/x", id).await;
    }
    assert_eq!(lock(&harness.records.endings).len(), 3);
    // The age limit holds while the registry runs, too.
    sleep(durable().tombstone_age + Duration::from_secs(2 * 3600)).await;
    assert!(lock(&harness.records.endings).is_empty());
}

#[tokio::test(start_paused = true)]
async fn crash_of_the_process_loses_no_session_and_at_most_the_changes_of_the_write_behind_interval() {
    let mut harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(durable().write_behind * 2).await;
    let late = harness.open("ann/x").await;
    // The first registry writes no more, as if its process had been killed.
    *lock(&harness.records.refuses) = true;
    let first = Arc::clone(&harness.registry);
    harness.restart().await;
    for (id, handshake) in [
        (&id, "<initialize><notifications/initialized>"),
        (&late, "<initialize>"),
    ] {
        harness.must_answer("ann/x", id).await;
        assert_eq!(harness.spawner.last_order().snapshot.expect("a snapshot").0, handshake);
    }
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn session_is_not_opened_without_its_record() {
    let harness = Harness::new(durable()).await;
    *lock(&harness.records.refuses) = true;
    let (status, body) = harness.exchange("ann/x", None, &rpc("1", "initialize")).await;
    assert_eq!(status, 503);
    assert!(body.contains(r#""id":1,"error""#), "{body}");
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats(), Stats::default());
    *lock(&harness.records.refuses) = false;
    sleep(Duration::from_secs(5)).await;
    assert!(lock(&harness.records.rows).is_empty());
}

#[tokio::test(start_paused = true)]
async fn sessions_of_another_registry_on_the_same_records_are_not_ended() {
    let mut harness = Harness::new(durable()).await;
    let (one, two) = (harness.open("ann/x").await, harness.open("ann/x").await);
    sleep(durable().write_behind * 2).await;
    let first = Arc::clone(&harness.registry);
    *lock(&harness.records.shared) = true;
    // The quota of the second registry is 1: it drops one session at its start, and evicts the
    // other for the new one.
    harness.set_user_quota(1);
    harness.restart().await;
    let new = harness.open("ann/x").await;
    sleep(durable().write_behind * 2).await;
    assert_eq!(lock(&harness.records.rows).len(), 3);
    assert!(lock(&harness.records.endings).is_empty());

    let second = std::mem::replace(&mut harness.registry, first);
    harness.must_answer("ann/x", &one).await;
    // A deletion ends the session for every registry.
    assert_eq!(harness.delete("ann/x", &two).await, StatusCode::NO_CONTENT);
    harness.registry.stop().await;
    second.stop().await;
    harness.set_user_quota(2);
    harness.restart().await;
    harness.must_answer("ann/x", &one).await;
    harness.must_answer("ann/x", &new).await;
    assert_eq!(harness.ping("ann/x", &two).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn change_of_a_request_is_recorded_after_a_slow_revival() {
    let harness = Harness::manual(durable()).await;
    let initialize = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    let id = session_id(&initialize.output().await);
    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(harness.registry.stats().dormant, 1);
    assert_eq!(harness.records.only().1.0, "<initialize>");
    let initialized = harness.post_in_background("ann/x", id.as_deref(), INITIALIZED);
    // The start of the request is written long before the request changes the snapshot.
    sleep(durable().write_behind * 4).await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Ready));
    drop(initialized.output().await);
    sleep(durable().write_behind * 2).await;
    let (_, snapshot) = harness.records.only();
    assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
}

#[tokio::test(start_paused = true)]
async fn opening_time_survives_a_restart() {
    let mut harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(1)).await;
    let opened = harness.records.only().0.opened;
    for _ in 0..2 {
        sleep(Duration::from_secs(20 * 60)).await;
        harness.must_answer("ann/x", &id).await;
        harness.registry.stop().await;
        harness.restart().await;
        drop(harness.post("ann/x", Some(&id), INITIALIZED).await);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(harness.records.only().0.opened, opened);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_writes_are_retried() {
    let harness = Harness::new(durable()).await;
    let (id, ended) = (harness.open("ann/x").await, harness.open("ann/x").await);
    *lock(&harness.records.refuses) = true;
    sleep(Duration::from_secs(5)).await;
    harness.delete("ann/x", &ended).await;
    harness.must_answer("ann/x", &id).await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(lock(&harness.records.rows).len(), 2);
    *lock(&harness.records.refuses) = false;
    sleep(Duration::from_secs(5)).await;
    let (_, snapshot) = harness.records.only();
    assert_eq!(snapshot.0, "<initialize><notifications/initialized>");
    let batches = harness.records.batches.load(Ordering::SeqCst);
    sleep(Duration::from_secs(30)).await;
    assert_eq!(
        harness.records.batches.load(Ordering::SeqCst),
        batches,
        "unchanged sessions are not written"
    );
}

#[tokio::test(start_paused = true)]
async fn records_contain_no_session_id() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(1)).await;
    let (record, _) = harness.records.only();
    let raw = hex::decode(&id).expect("hex");
    assert!(!record.key.0.windows(raw.len()).any(|window| window == raw) && !format!("{record:?}").contains(&id));
}

#[tokio::test(start_paused = true)]
async fn restart_with_lower_quota_keeps_the_sessions_used_last() {
    let mut harness = Harness::new(durable()).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(harness.open("ann/x").await);
        sleep(Duration::from_secs(2)).await;
    }
    harness.registry.stop().await;
    harness.set_user_quota(2);
    harness.restart().await;
    assert_eq!(harness.registry.stats().dormant, 2);
    assert_eq!(harness.ping("ann/x", &ids[1]).await.0, 404);
    harness.must_answer("ann/x", &ids[3]).await;
    let response = harness.post("ann/x", Some(&ids[3]), &rpc("2", "ping")).await;
    assert!(session_id(&response).is_none());
}
