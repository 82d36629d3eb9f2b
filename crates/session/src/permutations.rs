//! The registry under a scheduler that tries out orders: who spawns, who swaps, who ends.
//!
//! Everything that more than one task does with a session runs here as it is: seat, table, caps, openings, revivals, swaps,
//! endings, keepers, revocations. At each lock, flag and cell, and at each wait, the scheduler picks who goes on: at random,
//! and with few preemptions in chosen places (PCT). Backends, spawner and credentials are fakes that give way in between.
//! After each schedule all is at rest, and what must hold is looked at.
//!
//! A failure names its schedule, which `shuttle::replay` repeats. `PERMUTATIONS` sets how many schedules there are of
//! each kind. Left out: time, which stands still, and the loops that come round by it.

mod world;

use std::sync::{Arc, atomic::Ordering};

use http::Method;
use shuttle::{
    Runner,
    future::{block_on, spawn, yield_now},
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
};
use tokio::time::Instant;

use self::world::{World, answer, durable, grant, user};
use crate::{
    Config, Stats,
    ending::Shut,
    ports::{AuthenticatedAt, Credentials, EndReason},
    renewals::{self, Verdict},
    rotator,
};

/// Schedules of each kind, of each scenario.
const SCHEDULES: usize = 250;
/// How many preemptions are put in chosen places.
const DEPTH: usize = 4;

/// Runs what uses the locks of the crate, once and in no particular order.
pub(crate) fn once(test: impl Fn() + Send + Sync + 'static) {
    Runner::new(RandomScheduler::new(1), config()).run(test);
}

/// Runs a scenario under many schedules.
fn explore(scenario: impl Fn() + Clone + Send + Sync + 'static) {
    let schedules = std::env::var("PERMUTATIONS").map_or(SCHEDULES, |number| number.parse().expect("a number"));
    run(RandomScheduler::new(schedules), scenario.clone());
    run(PctScheduler::new(DEPTH, schedules), scenario);
}

fn run(scheduler: impl Scheduler + 'static, scenario: impl Fn() + Send + Sync + 'static) {
    Runner::new(scheduler, config()).run(scenario);
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    // Orderings weaker than sequential consistency are taken as that.
    config.silence_warnings = true;
    config.stack_size = 1 << 18;
    config
}

/// Whoever comes to a session that sleeps is served by one and the same fresh backend.
#[test]
fn however_many_wake_a_session_there_is_one_spawn() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            world.shared().sleep(&session);
            assert!(session.seat().is_none());
            let asked: Vec<_> = (0..3).map(|_| world.send(world.ping(&id))).collect();
            for ask in asked {
                assert_eq!(ask.await.expect("no panic").0, 200);
            }
            assert_eq!(world.spawns(), 2, "one for the opening, one for the revival");
            assert_eq!(world.at_rest().await.attached, 1);
            world.stop().await;
        });
    });
}

/// DetachReason, revival and exchanges: no exchange is lost, and never is more than one backend started at a time.
#[test]
fn who_comes_while_a_session_goes_to_sleep_is_served() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            let first = world.send(world.ping(&id));
            let second = world.send(world.ping(&id));
            let (shared, sleeper) = (Arc::clone(world.shared()), Arc::clone(&session));
            let sleeping = spawn(async move { shared.sleep(&sleeper) });
            assert_eq!(first.await.expect("no panic").0, 200);
            assert_eq!(second.await.expect("no panic").0, 200);
            sleeping.await.expect("no panic");
            let stats = world.at_rest().await;
            assert_eq!(stats.attached + stats.dormant, 1);
            assert_eq!(world.yard.most_under.load(Ordering::SeqCst), 1);
            world.stop().await;
        });
    });
}

/// A backend dies while it is being replaced: its observer does not evict the one that took its seat.
#[test]
fn the_death_of_a_replaced_backend_evicts_nothing() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            let (seat, old) = (session.seat().expect("a seat"), world.running().remove(0));
            let (shared, moved, from) = (Arc::clone(world.shared()), Arc::clone(&session), Arc::clone(&seat));
            let rotating = spawn(async move { rotator::replace(&shared, &moved, &from).await });
            let dying = spawn(async move { old.die() });
            rotating.await.expect("no panic");
            dying.await.expect("no panic");
            let stats = world.at_rest().await;
            assert_eq!(stats.attached + stats.dormant, 1, "the session has outlived it");
            assert_eq!(
                stats.attached,
                world.yard.rotated.load(Ordering::SeqCst),
                "who has taken the seat keeps it"
            );
            if stats.attached == 1 {
                let now = session.seat().expect("a seat");
                assert!(!Arc::ptr_eq(&now, &seat) && !now.backend.is_gone());
            }
            assert_eq!(answer(&world.reg, world.ping(&id)).await.0, 200);
            assert!(world.spawns() <= 3, "one that moves it, or else one that revives it");
            world.stop().await;
        });
    });
}

/// Two rotations of one session, and its end: one backend at most goes on, and none after the end.
#[test]
fn an_end_while_a_session_moves_leaves_no_backend() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            let seat = session.seat().expect("a seat");
            let rotations: Vec<_> = (0..2)
                .map(|_| {
                    let (shared, session, seat) = (Arc::clone(world.shared()), Arc::clone(&session), Arc::clone(&seat));
                    spawn(async move { rotator::replace(&shared, &session, &seat).await })
                })
                .collect();
            let ending = world.send(world.request(Method::DELETE, Some(&id), ""));
            let ask = world.send(world.ping(&id));
            for rotation in rotations {
                rotation.await.expect("no panic");
            }
            assert_eq!(ending.await.expect("no panic").0, 204);
            assert!(matches!(ask.await.expect("no panic").0, 200 | 404));
            assert_eq!(world.at_rest().await, Stats::default());
            session.gone.cancelled().await;
            assert!(world.spawns() <= 3 && world.yard.most_under.load(Ordering::SeqCst) <= 2);
            assert_eq!(answer(&world.reg, world.ping(&id)).await.0, 404);
            world.stop().await;
        });
    });
}

/// A session that sleeps is ended while it wakes: by its client, and by a revocation.
#[test]
fn an_end_while_a_session_wakes_leaves_no_backend() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            world.shared().sleep(&session);
            let ask = world.send(world.ping(&id));
            let ending = world.send(world.request(Method::DELETE, Some(&id), ""));
            let reg = Arc::clone(&world.reg);
            let revoking = spawn(async move { reg.end_grant(&grant()).await });
            assert!(matches!(ask.await.expect("no panic").0, 200 | 401 | 404));
            assert!(matches!(ending.await.expect("no panic").0, 204 | 404));
            revoking.await.expect("no panic");
            session.gone.cancelled().await;
            assert_eq!(world.at_rest().await, Stats::default());
            world.stop().await;
        });
    });
}

/// Openings race for the last place, which only one gets; at the end all places are free again.
#[test]
fn caps_are_exact() {
    explore(|| {
        block_on(async {
            let world = World::new(Config {
                max_sessions: 1,
                max_sessions_per_user: 1,
                ..Config::default()
            });
            let openings: Vec<_> = (0..3).map(|_| world.send(world.initialize())).collect();
            let mut good = Vec::new();
            for opening in openings {
                let (status, id) = opening.await.expect("no panic");
                assert!(matches!(status, 200 | 429));
                good.extend(id);
            }
            assert_eq!(
                (good.len(), world.spawns()),
                (1, 1),
                "nothing is spawned without a place"
            );
            assert_eq!(world.at_rest().await.attached, 1);
            assert_eq!(
                answer(&world.reg, world.request(Method::DELETE, Some(&good[0]), ""))
                    .await
                    .0,
                204
            );
            assert_eq!(world.at_rest().await, Stats::default());
            world.stop().await;
        });
    });
}

/// A new session takes the place of one that sleeps, or that one wakes first: never both.
#[test]
fn a_session_that_wakes_is_not_displaced() {
    explore(|| {
        block_on(async {
            let world = World::new(Config {
                max_sessions: 1,
                max_sessions_per_user: 1,
                ..durable()
            });
            let (id, session) = world.open().await;
            world.shared().sleep(&session);
            // Its last backend has gone: from now on it can be displaced.
            while !world.running().is_empty() {
                yield_now().await;
            }
            let ask = world.send(world.ping(&id));
            let opening = world.send(world.initialize());
            let (woken, opened) = (ask.await.expect("no panic").0, opening.await.expect("no panic").0);
            assert!(matches!((woken, opened), (200, 429) | (404, 200)), "{woken} {opened}");
            assert!(world.running().len() <= 1);
            let stats = world.at_rest().await;
            assert!(stats.attached + stats.dormant <= 1);
            world.stop().await;
        });
    });
}

/// A grant ends while a request that was let in before opens a session: whichever is first, none is left.
#[test]
fn a_revocation_leaves_no_session_that_is_being_opened() {
    explore(|| {
        block_on(async {
            let world = World::new(Config::default());
            let mut request = world.initialize();
            request.extensions_mut().insert(AuthenticatedAt(Instant::now()));
            let opening = world.send(request);
            let reg = Arc::clone(&world.reg);
            let revoking = spawn(async move { reg.end_grant(&grant()).await });
            let (status, id) = opening.await.expect("no panic");
            revoking.await.expect("no panic");
            assert!(matches!(status, 200 | 401), "{status}");
            assert_eq!(world.at_rest().await, Stats::default(), "nothing of the grant is left");
            if let Some(id) = id {
                assert_eq!(answer(&world.reg, world.ping(&id)).await.0, 404);
            }
            world.stop().await;
        });
    });
}

/// Backends die of their handshake: many ask for a renewal, one is made, and its outcome is everybody's.
#[test]
fn renewals_for_one_reason_are_one() {
    explore(|| {
        block_on(async {
            let world = World::new(Config::default());
            world.wallet.refused.store(true, Ordering::SeqCst);
            let mark = world.shared().renewals.mark();
            let asking: Vec<_> = (0..3)
                .map(|_| {
                    let (shared, wallet) = (Arc::clone(world.shared()), Arc::clone(&world.wallet));
                    spawn(async move {
                        let credentials = wallet as Arc<dyn Credentials>;
                        renewals::ask(&shared, &user(), &credentials, mark).await
                    })
                })
                .collect();
            let mut told = 0;
            for ask in asking {
                told += usize::from(ask.await.expect("no panic") == Verdict::SignIn);
            }
            // Who comes when it is over finds that there was one of late.
            assert!(told >= 1);
            assert_eq!(world.wallet.refreshes.load(Ordering::SeqCst), 1);
            world.stop().await;
        });
    });
}

/// The registry stops while sessions open, wake and end: when it has stopped there is nothing.
#[test]
fn a_stop_leaves_nothing_whatever_is_under_way() {
    explore(|| {
        block_on(async {
            let world = World::new(durable());
            let (id, session) = world.open().await;
            world.shared().sleep(&session);
            let asked = [world.send(world.ping(&id)), world.send(world.initialize())];
            let shared = Arc::clone(world.shared());
            let ending = spawn(async move {
                shared.end(&session, EndReason::Idle, Shut::Dormant);
            });
            let stops: Vec<_> = (0..2)
                .map(|_| {
                    let reg = Arc::clone(&world.reg);
                    spawn(async move { reg.stop().await })
                })
                .collect();
            for ask in asked {
                let status = ask.await.expect("no panic").0;
                assert!(matches!(status, 200 | 404 | 503), "{status}");
            }
            ending.await.expect("no panic");
            for stop in stops {
                stop.await.expect("no panic");
            }
            assert_eq!((world.running().len(), world.reg.stats()), (0, Stats::default()));
            world.stop().await;
        });
    });
}
