//! The events that an observer gets: each once, with its purpose, its reason or its duration.

use std::time::Duration;

use session::{
    Config,
    ports::{DetachReason, EndReason, Event, QuotaScope, SpawnFailure, SpawnPurpose},
    testing::{RefreshOutcome, SpawnOutcome},
};
use tokio::time::sleep;

use crate::harness::{Harness, durable, run_ready_tasks};

const NO_TIME: Duration = Duration::ZERO;

#[tokio::test(start_paused = true)]
async fn events_of_a_session_from_its_opening_to_its_end() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    assert_eq!(
        harness.take_events(),
        [Event::Spawned(SpawnPurpose::Opening, NO_TIME), Event::Opened]
    );

    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(harness.take_events(), [Event::Detached(DetachReason::Idle)]);
    harness.must_answer("ann/x", &id).await;
    let revived = [
        Event::Spawned(SpawnPurpose::Revival, NO_TIME),
        Event::Revived(NO_TIME),
        Event::Waited(NO_TIME),
    ];
    assert_eq!(harness.take_events(), revived);

    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    assert_eq!(
        harness.take_events(),
        [Event::BackendDied, Event::Detached(DetachReason::BackendDied)]
    );
    harness.must_answer("ann/x", &id).await;
    assert_eq!(harness.take_events(), revived);

    harness.delete("ann/x", &id).await;
    assert_eq!(harness.take_events(), [Event::Ended(EndReason::Deleted)]);
}

#[tokio::test(start_paused = true)]
async fn each_request_reports_its_wait_for_a_revival() {
    let harness = Harness::manual(durable()).await;
    let id = harness.open_manually("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    harness.take_events();

    let first = harness.ping_in_background("ann/x", &id);
    sleep(Duration::from_secs(2)).await;
    let second = harness.ping_in_background("ann/x", &id);
    sleep(Duration::from_secs(3)).await;
    assert!(harness.spawner.resolve_last(SpawnOutcome::Unavailable));
    assert_eq!((first.output().await.0, second.output().await.0), (503, 503));
    let mut events = harness.take_events();
    let waited = events.split_off(2);
    assert_eq!(
        events,
        [
            Event::SpawnFailed(SpawnPurpose::Revival, SpawnFailure::Unavailable),
            Event::RevivalFailed
        ]
    );
    for wait in [5, 3] {
        let event = Event::Waited(Duration::from_secs(wait));
        assert!(waited.contains(&event), "{waited:?}");
    }
    assert_eq!(waited.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_rotation_and_of_its_failures() {
    let harness = Harness::new(Config {
        idle_timeout: Duration::from_secs(1 << 30),
        ..durable()
    })
    .await;
    harness.open("ann/x").await;
    harness.take_events();
    sleep(Duration::from_secs(57 * 60)).await;
    assert_eq!(
        harness.take_events(),
        [Event::Spawned(SpawnPurpose::Rotation, NO_TIME), Event::Rotated]
    );
    let credentials = harness.credentials("ann");
    assert_eq!(credentials.refresh_count(), 1);

    credentials.set_refresh_outcome(RefreshOutcome::Transient);
    sleep(Duration::from_secs(61 * 60)).await;
    let mut events = harness.take_events();
    assert_eq!(events.pop(), Some(Event::Detached(DetachReason::Expired)));
    assert!(events.len() > 1 && events.iter().all(|event| *event == Event::RotationFailed));
}

#[tokio::test(start_paused = true)]
async fn events_of_failed_starts_and_exceeded_quotas() {
    let harness = Harness::manual(Config {
        max_sessions: 2,
        max_sessions_per_user: 1,
        start_timeout: Duration::from_secs(30),
        ..Config::default()
    })
    .await;
    // Without a new credential, a failed start is not repeated.
    let credentials = harness.credentials("ann");
    credentials.set_refresh_outcome(RefreshOutcome::Transient);
    for (outcome, failure) in [
        (Some(SpawnOutcome::Credentials), SpawnFailure::Credentials),
        (Some(SpawnOutcome::Unavailable), SpawnFailure::Unavailable),
        (Some(SpawnOutcome::Failed), SpawnFailure::Failed),
        (None, SpawnFailure::TimedOut),
    ] {
        let opening = harness.initialize_in_background("ann/x");
        run_ready_tasks().await;
        if let Some(outcome) = outcome {
            assert!(harness.spawner.resolve_last(outcome));
        }
        drop(opening.output().await);
        assert_eq!(
            harness.take_events(),
            [
                Event::SpawnFailed(SpawnPurpose::Opening, failure),
                Event::Ended(EndReason::NotOpened)
            ]
        );
    }

    // Two of the starts count for the backoff of the user.
    sleep(Config::default().backoff).await;
    for who in ["ann/x", "bob/x"] {
        harness.open_manually(who).await;
    }
    harness.take_events();
    for (who, scope) in [("ann/y", QuotaScope::User), ("eve/x", QuotaScope::Total)] {
        drop(harness.initialize(who).await);
        assert_eq!(harness.take_events(), [Event::QuotaExceeded(scope)]);
    }
}
