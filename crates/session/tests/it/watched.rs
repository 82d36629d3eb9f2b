//! What the registry tells whoever counts: each thing that happens once, with its purpose, its reason, or how long it took.

use std::{sync::atomic::Ordering, time::Duration};

use http::Method;
use session::{
    Config,
    ports::{DetachReason, EndReason, Event, QuotaScope, SpawnFailure, SpawnPurpose},
};
use tokio::time::sleep;

use crate::{
    fakes::{Outcome, ScriptedSpawner, lock, rpc, settle},
    world::{Answers, World},
};

const NOTHING: Duration = Duration::ZERO;

fn durable() -> Config {
    Config {
        retain: Duration::from_secs(24 * 3600),
        ..Config::default()
    }
}

/// What has been told since the last time.
fn told(world: &World) -> Vec<Event> {
    std::mem::take(&mut *lock(&world.events.0))
}

#[tokio::test(start_paused = true)]
async fn a_session_is_told_of_from_its_opening_to_its_end() {
    let world = World::new(durable()).await;
    let id = world.open("ann/x").await;
    assert_eq!(
        told(&world),
        [Event::Spawned(SpawnPurpose::Opening, NOTHING), Event::Opened]
    );

    sleep(Duration::from_secs(16 * 60)).await;
    assert_eq!(told(&world), [Event::Detached(DetachReason::Idle)]);
    world.must_answer("ann/x", &id).await;
    let revived = [
        Event::Spawned(SpawnPurpose::Revival, NOTHING),
        Event::Revived(NOTHING),
        Event::Waited(NOTHING),
    ];
    assert_eq!(told(&world), revived);

    world.spawner.last().die();
    settle().await;
    assert_eq!(
        told(&world),
        [Event::BackendDied, Event::Detached(DetachReason::BackendDied)]
    );
    world.must_answer("ann/x", &id).await;
    assert_eq!(told(&world), revived);

    drop(world.send(Method::DELETE, "ann/x", Some(&id), "").await);
    assert_eq!(told(&world), [Event::Ended(EndReason::Deleted)]);
}

#[tokio::test(start_paused = true)]
async fn a_revival_is_told_with_how_long_its_requests_have_waited() {
    let world = World::with(durable(), ScriptedSpawner::gated()).await;
    let opening = async { world.open("ann/x").await };
    let (id, ()) = tokio::join!(opening, async {
        settle().await;
        world.spawner.decide(&world.spawner.last_tag(), Outcome::Good);
    });
    world.spawner.last().die();
    settle().await;
    told(&world);

    let late = async {
        sleep(Duration::from_secs(2)).await;
        world.ping("ann/x", &id).await
    };
    let decide = async {
        sleep(Duration::from_secs(5)).await;
        world.spawner.decide(&world.spawner.last_tag(), Outcome::Unavailable);
    };
    let (first, second, ()) = tokio::join!(world.ping("ann/x", &id), late, decide);
    assert_eq!((first.0, second.0), (503, 503));
    let mut events = told(&world);
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
async fn a_rotation_is_told_and_so_is_its_failure() {
    let awake = Config {
        idle_timeout: Duration::from_secs(1 << 30),
        ..durable()
    };
    let world = World::new(awake).await;
    world.open("ann/x").await;
    told(&world);
    sleep(Duration::from_secs(57 * 60)).await;
    assert_eq!(
        told(&world),
        [Event::Spawned(SpawnPurpose::Rotation, NOTHING), Event::Rotated]
    );
    assert_eq!(world.wallet("ann").refreshes.load(Ordering::SeqCst), 1);

    *lock(&world.wallet("ann").answers) = Answers::Later;
    sleep(Duration::from_secs(61 * 60)).await;
    let mut events = told(&world);
    assert_eq!(events.pop(), Some(Event::Detached(DetachReason::Expired)));
    assert!(events.len() > 1 && events.iter().all(|event| *event == Event::RotationFailed));
}

#[tokio::test(start_paused = true)]
async fn refusals_and_failed_starts_are_told_with_their_reasons() {
    let world = World::with(
        Config {
            max_sessions: 2,
            max_sessions_per_user: 1,
            start_timeout: Duration::from_secs(30),
            ..Config::default()
        },
        ScriptedSpawner::gated(),
    )
    .await;
    // So that what failed is not tried once more with another credential.
    *lock(&world.wallet("ann").answers) = Answers::Later;
    for (outcome, failure) in [
        (Some(Outcome::Credentials), SpawnFailure::Credentials),
        (Some(Outcome::Unavailable), SpawnFailure::Unavailable),
        (Some(Outcome::Failed), SpawnFailure::Failed),
        (None, SpawnFailure::TimedOut),
    ] {
        let initialize = rpc("1", "initialize");
        let opening = async { drop(world.send(Method::POST, "ann/x", None, &initialize).await) };
        tokio::join!(opening, async {
            settle().await;
            if let Some(outcome) = outcome {
                world.spawner.decide(&world.spawner.last_tag(), outcome);
            }
        });
        assert_eq!(
            told(&world),
            [
                Event::SpawnFailed(SpawnPurpose::Opening, failure),
                Event::Ended(EndReason::NotOpened)
            ]
        );
    }

    for who in ["ann/x", "bob/x"] {
        let opening = async { world.open(who).await };
        tokio::join!(opening, async {
            settle().await;
            world.spawner.decide(&world.spawner.last_tag(), Outcome::Good);
        });
    }
    told(&world);
    for (who, cap) in [("ann/y", QuotaScope::User), ("eve/x", QuotaScope::Total)] {
        drop(world.send(Method::POST, who, None, &rpc("1", "initialize")).await);
        assert_eq!(told(&world), [Event::QuotaExceeded(cap)]);
    }
}
