//! The registry under a scheduler that permutes the order of its tasks.
//!
//! All code that several tasks of a session share runs here unchanged: attached servers, the
//! session table, quotas, opening, implicit sessions, wake, rotation, endings, keepers, revocation
//! and the pass-through conversation. At each lock, flag and wait the scheduler chooses the next
//! task: at random, and with few preemptions at chosen points (PCT). The scripted backends, spawner
//! and credentials have scheduling points too. Each schedule ends with a check of the invariants
//! ([`Harness::quiesce`](harness::Harness::quiesce)).
//!
//! A failure prints its schedule, which `shuttle::replay` repeats. `PERMUTATIONS` sets the number
//! of schedules of each kind. Time stands still, so the periodic tasks do not run.

mod conversations;
mod harness;
mod implicit_sessions;

use std::sync::Arc;

use shuttle::{
    Runner,
    future::{block_on, spawn, yield_now},
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};
use tokio::time::Instant;

use self::harness::{Harness, detach_idle, durable};
use crate::{
    Config, Stats,
    ports::{AuthenticatedAt, EndReason},
    servers::{renew::renew, rotate},
    state::{EndCondition, RenewalOutcome},
    testing::RefreshOutcome,
};

/// Schedules of each kind for each scenario.
const SCHEDULES: usize = 250;
/// Preemptions at chosen points in each schedule.
const DEPTH: usize = 4;

/// Runs a test that uses the locks of the crate, in one random schedule.
pub(crate) fn once(test: impl Fn() + Send + Sync + 'static) {
    Runner::new(RandomScheduler::new(1), config()).run(test);
}

/// Runs a scenario under many schedules.
fn explore<F: Future<Output = ()>>(scenario: impl Fn() -> F + Clone + Send + Sync + 'static) {
    let schedules = std::env::var("PERMUTATIONS").map_or(SCHEDULES, |number| number.parse().expect("a number"));
    run(RandomScheduler::new(schedules), scenario.clone());
    run(PctScheduler::new(DEPTH, schedules), scenario);
}

fn run<F: Future<Output = ()>>(scheduler: impl Scheduler + 'static, scenario: impl Fn() -> F + Send + Sync + 'static) {
    Runner::new(scheduler, config()).run(move || block_on(scenario()));
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    // The scheduler treats every atomic ordering as sequentially consistent, and would warn of it.
    config.silence_warnings = true;
    config.stack_size = 1 << 18;
    config
}

#[test]
fn concurrent_requests_revive_a_dormant_session_with_one_spawn() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        detach_idle(harness.state(), &session);
        assert!(session.server().is_none());
        let pings: Vec<_> = (0..3).map(|_| harness.send(harness.ping(&id))).collect();
        for ping in pings {
            assert_eq!(ping.await.expect("no panic").0, 200);
        }
        assert_eq!(
            harness.spawner.spawn_count(),
            2,
            "one for the opening, one for the revival"
        );
        assert_eq!(harness.quiesce().await.attached, 1);
        harness.stop().await;
    });
}

#[test]
fn requests_are_answered_while_their_session_is_detached_and_revived() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        let first = harness.send(harness.ping(&id));
        let second = harness.send(harness.ping(&id));
        let state = Arc::clone(harness.state());
        let detaching = spawn(async move { detach_idle(&state, &session) });
        assert_eq!(first.await.expect("no panic").0, 200);
        assert_eq!(second.await.expect("no panic").0, 200);
        detaching.await.expect("no panic");
        let stats = harness.quiesce().await;
        assert_eq!(stats.attached + stats.dormant, 1);
        assert_eq!(harness.spawner.peak_spawns_of_session(), 1);
        harness.stop().await;
    });
}

/// The revival comes as soon as the backend is detached, while the detachment is still under way.
#[test]
fn backend_of_a_revival_has_the_deadlines_of_an_attached_one() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        let (state, detached) = (Arc::clone(harness.state()), Arc::clone(&session));
        let detaching = spawn(async move { detach_idle(&state, &detached) });
        while session.server().is_some() {
            yield_now().await;
        }
        assert_eq!(harness.serve(harness.ping(&id)).await.0, 200);
        detaching.await.expect("no panic");
        assert_eq!(harness.quiesce().await.attached, 1);
        harness.stop().await;
    });
}

#[test]
fn death_of_a_replaced_backend_keeps_its_successor_attached() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        let (attached, old) = (session.server().expect("a backend"), harness.running().remove(0));
        let (state, rotated, from) = (Arc::clone(harness.state()), Arc::clone(&session), Arc::clone(&attached));
        let rotating = spawn(async move { rotate::rotate_session(&state, &rotated, &from).await });
        let dying = spawn(async move { old.die() });
        rotating.await.expect("no panic");
        dying.await.expect("no panic");
        let stats = harness.quiesce().await;
        assert_eq!(
            stats.attached + stats.dormant,
            1,
            "the session outlives the old backend"
        );
        assert_eq!(
            stats.attached,
            harness.rotations(),
            "the new backend stays attached once it is"
        );
        if stats.attached == 1 {
            let now = session.server().expect("a backend");
            assert!(!Arc::ptr_eq(&now, &attached) && !now.server.is_gone());
        }
        assert_eq!(harness.serve(harness.ping(&id)).await.0, 200);
        assert!(
            harness.spawner.spawn_count() <= 3,
            "one for the rotation, and at most one for a revival"
        );
        harness.stop().await;
    });
}

/// Two rotations of one session and its deletion.
#[test]
fn session_that_ends_during_rotations_leaves_no_backend() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        let attached = session.server().expect("a backend");
        let rotations: Vec<_> = (0..2)
            .map(|_| {
                let state = Arc::clone(harness.state());
                let (session, attached) = (Arc::clone(&session), Arc::clone(&attached));
                spawn(async move { rotate::rotate_session(&state, &session, &attached).await })
            })
            .collect();
        let deletion = harness.send(harness.delete(&id));
        let ping = harness.send(harness.ping(&id));
        for rotation in rotations {
            rotation.await.expect("no panic");
        }
        assert_eq!(deletion.await.expect("no panic").0, 204);
        assert!(matches!(ping.await.expect("no panic").0, 200 | 404));
        assert_eq!(harness.quiesce().await, Stats::default());
        session.gone.cancelled().await;
        assert!(harness.spawner.spawn_count() <= 3 && harness.spawner.peak_spawns_of_session() <= 2);
        assert_eq!(harness.serve(harness.ping(&id)).await.0, 404);
        harness.stop().await;
    });
}

/// A revival, a deletion and a revocation of one session.
#[test]
fn session_that_ends_during_its_revival_leaves_no_backend() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        detach_idle(harness.state(), &session);
        let ping = harness.send(harness.ping(&id));
        let deletion = harness.send(harness.delete(&id));
        let revocation = harness.revoke();
        assert!(matches!(ping.await.expect("no panic").0, 200 | 401 | 404));
        assert!(matches!(deletion.await.expect("no panic").0, 204 | 404));
        revocation.await.expect("no panic");
        session.gone.cancelled().await;
        assert_eq!(harness.quiesce().await, Stats::default());
        harness.stop().await;
    });
}

#[test]
fn quotas_are_exact_when_openings_race() {
    explore(async || {
        let harness = Harness::new(Config {
            max_sessions: 1,
            max_sessions_per_user: 1,
            ..Config::default()
        });
        let openings: Vec<_> = (0..3).map(|_| harness.send(harness.initialize())).collect();
        let mut ids = Vec::new();
        for opening in openings {
            let (status, id) = opening.await.expect("no panic");
            assert!(matches!(status, 200 | 429));
            ids.extend(id);
        }
        assert_eq!(
            (ids.len(), harness.spawner.spawn_count()),
            (1, 1),
            "nothing is spawned beyond the quota"
        );
        assert_eq!(harness.quiesce().await.attached, 1);
        assert_eq!(harness.serve(harness.delete(&ids[0])).await.0, 204);
        assert_eq!(harness.quiesce().await, Stats::default());
        harness.stop().await;
    });
}

/// At the quota, a new session evicts a dormant one unless that is revived first.
#[test]
fn session_is_either_revived_or_evicted() {
    explore(async || {
        let harness = Harness::new(Config {
            max_sessions: 1,
            max_sessions_per_user: 1,
            ..durable()
        });
        let (id, session) = harness.open().await;
        detach_idle(harness.state(), &session);
        // The session can be evicted once its last backend has exited.
        while !harness.running().is_empty() {
            yield_now().await;
        }
        let ping = harness.send(harness.ping(&id));
        let opening = harness.send(harness.initialize());
        let (revived, opened) = (ping.await.expect("no panic").0, opening.await.expect("no panic").0);
        assert!(
            matches!((revived, opened), (200, 429) | (404, 200)),
            "{revived} {opened}"
        );
        assert!(harness.running().len() <= 1);
        let stats = harness.quiesce().await;
        assert!(stats.attached + stats.dormant <= 1);
        harness.stop().await;
    });
}

/// The request was authenticated before its grant ends.
#[test]
fn revocation_leaves_no_session_that_is_opening() {
    explore(async || {
        let harness = Harness::new(Config::default());
        let mut request = harness.initialize();
        request.extensions_mut().insert(AuthenticatedAt(Instant::now()));
        let opening = harness.send(request);
        let revocation = harness.revoke();
        let (status, id) = opening.await.expect("no panic");
        revocation.await.expect("no panic");
        assert!(matches!(status, 200 | 401), "{status}");
        assert_eq!(
            harness.quiesce().await,
            Stats::default(),
            "no session of the grant is left"
        );
        if let Some(id) = id {
            assert_eq!(harness.serve(harness.ping(&id)).await.0, 404);
        }
        harness.stop().await;
    });
}

#[test]
fn concurrent_renewal_requests_share_one_refresh() {
    explore(async || {
        let harness = Harness::new(Config::default());
        harness.credentials.set_refresh_outcome(RefreshOutcome::Terminal);
        let generation = harness.state().renewal_gate.generation();
        let requests: Vec<_> = (0..3)
            .map(|_| {
                let (state, caller) = (Arc::clone(harness.state()), Arc::clone(&harness.caller));
                spawn(async move { renew(&state, &caller.user, &caller.credentials, generation).await })
            })
            .collect();
        let mut refused = 0;
        for request in requests {
            refused += usize::from(request.await.expect("no panic") == RenewalOutcome::SignInRequired);
        }
        // A request that comes after the refresh learns only that there was one.
        assert!(refused >= 1);
        assert_eq!(harness.credentials.refresh_count(), 1);
        harness.stop().await;
    });
}

/// The registry stops while sessions open, revive and end.
#[test]
fn stop_leaves_no_session_and_no_backend() {
    explore(async || {
        let harness = Harness::new(durable());
        let (id, session) = harness.open().await;
        detach_idle(harness.state(), &session);
        let requests = [harness.send(harness.ping(&id)), harness.send(harness.initialize())];
        let state = Arc::clone(harness.state());
        let ending = spawn(async move {
            state.end(&session, EndReason::Idle, EndCondition::IfDormant);
        });
        let stops: Vec<_> = (0..2)
            .map(|_| {
                let registry = Arc::clone(&harness.registry);
                spawn(async move { registry.stop().await })
            })
            .collect();
        for request in requests {
            let status = request.await.expect("no panic").0;
            assert!(matches!(status, 200 | 404 | 503), "{status}");
        }
        ending.await.expect("no panic");
        for stop in stops {
            stop.await.expect("no panic");
        }
        assert_eq!(
            (harness.running().len(), harness.registry.stats()),
            (0, Stats::default())
        );
        harness.stop().await;
    });
}
