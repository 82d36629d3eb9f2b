//! A credential that looks good and that the user has taken back upstream: the backends show it, and a renewal tells.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use session::{Config, SignInRequired, Stats, ports::Event};
use tokio::task::JoinSet;

use crate::{
    fakes::{Outcome, ScriptedSpawner, rpc, session_id, settle, text},
    world::{Answers, Wallet, World},
};

const PAUSE: Duration = Duration::from_secs(300);

fn config() -> Config {
    Config {
        retain: Duration::from_secs(24 * 3600),
        renewal_pause: PAUSE,
        ..Config::default()
    }
}

fn refreshes(wallet: &Wallet) -> usize {
    wallet.refreshes.load(Ordering::SeqCst)
}

/// The status of an `initialize`, and whether the user is asked to sign in again.
async fn initialize(world: &World, who: &str) -> (u16, bool) {
    let response = world.send(Method::POST, who, None, &rpc("1", "initialize")).await;
    let (status, sign_in) = (
        response.status().as_u16(),
        response.extensions().get::<SignInRequired>().is_some(),
    );
    assert_eq!(session_id(&response).is_some(), status == 200);
    drop(text(response).await);
    settle().await;
    (status, sign_in)
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_taken_back_is_401_at_the_next_opening_and_ends_the_users_sessions() {
    let world = World::new(config()).await;
    let id = world.open("ann/x").await;
    let wallet = world.wallet("ann");
    wallet.take_back();
    *wallet.answers.lock().expect("a lock") = Answers::Never;
    assert_eq!(initialize(&world, "ann/y").await, (401, true));
    assert_eq!(refreshes(&wallet), 1);
    assert_eq!(world.ping("ann/x", &id).await.0, 404);
    settle().await;
    assert_eq!((world.reg.stats(), world.spawner.running.now()), (Stats::default(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_taken_back_is_401_at_a_revival() {
    let world = World::new(config()).await;
    let id = world.open("ann/x").await;
    let wallet = world.wallet("ann");
    wallet.take_back();
    *wallet.answers.lock().expect("a lock") = Answers::Never;
    world.spawner.last().die();
    settle().await;
    let response = world.send(Method::POST, "ann/x", Some(&id), &rpc("2", "ping")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.extensions().get::<SignInRequired>().is_some());
    assert_eq!((refreshes(&wallet), world.reg.stats()), (1, Stats::default()));
}

#[tokio::test(start_paused = true)]
async fn what_a_renewal_mends_is_not_noticed() {
    // At the caps too: the one that failed has left its place when the next one is made.
    let world = World::new(Config {
        max_sessions: 1,
        max_sessions_per_user: 1,
        ..config()
    })
    .await;
    let wallet = world.wallet("ann");
    wallet.take_back();
    let id = world.open("ann/x").await;
    world.must_answer("ann/x", &id).await;
    assert_eq!((refreshes(&wallet), world.spawner.orders()), (1, 2));
    // And of a session that sleeps, once the pause is over.
    tokio::time::sleep(PAUSE).await;
    wallet.take_back();
    world.spawner.last().die();
    settle().await;
    world.must_answer("ann/x", &id).await;
    assert_eq!(refreshes(&wallet), 2);
    assert_eq!(world.count(|event| matches!(event, Event::Revived(_))), 1);
    assert_eq!(world.spawner.running.now(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_for_now_changes_nothing() {
    let world = World::new(config()).await;
    let wallet = world.wallet("ann");
    wallet.take_back();
    *wallet.answers.lock().expect("a lock") = Answers::Later;
    assert_eq!(initialize(&world, "ann/x").await, (502, false));
    assert_eq!((refreshes(&wallet), world.spawner.orders()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_start_costs_one_renewal_in_each_pause() {
    for outcome in [Outcome::Failed, Outcome::DiesAtInitialize] {
        let world = World::with(config(), ScriptedSpawner::immediate(outcome)).await;
        let wallet = world.wallet("ann");
        for _ in 0..50 {
            assert_eq!(initialize(&world, "ann/x").await, (502, false));
        }
        assert_eq!((refreshes(&wallet), world.spawner.orders()), (1, 51), "{outcome:?}");
        tokio::time::sleep(PAUSE - Duration::from_secs(1)).await;
        assert_eq!(initialize(&world, "ann/x").await, (502, false));
        assert_eq!(refreshes(&wallet), 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for _ in 0..50 {
            assert_eq!(initialize(&world, "ann/x").await, (502, false));
        }
        assert_eq!(refreshes(&wallet), 2, "{outcome:?}");
        settle().await;
        assert_eq!((world.reg.stats(), world.spawner.running.now()), (Stats::default(), 0));
    }
}

#[tokio::test(start_paused = true)]
async fn backends_that_renew_credentials_themselves_cost_no_renewal_when_they_end() {
    for outcome in [Outcome::Failed, Outcome::DiesAtInitialize] {
        let world = World::with(config(), ScriptedSpawner::immediate(outcome)).await;
        world.spawner.renews.store(true, Ordering::SeqCst);
        assert_eq!(initialize(&world, "ann/x").await, (502, false), "{outcome:?}");
        assert_eq!((refreshes(&world.wallet("ann")), world.spawner.orders()), (0, 1));
    }
    // Of a session that sleeps, too.
    let world = World::new(config()).await;
    world.spawner.renews.store(true, Ordering::SeqCst);
    let id = world.open("ann/x").await;
    let wallet = world.wallet("ann");
    wallet.take_back();
    world.spawner.last().die();
    settle().await;
    assert_eq!(world.ping("ann/x", &id).await.0, 502);
    assert_eq!(refreshes(&wallet), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_end_at_the_start_costs_no_renewal() {
    for (outcome, status) in [
        (Outcome::Unavailable, 503),
        (Outcome::Credentials, 401),
        (Outcome::NotReady, 502),
        (Outcome::SilentInitialize, 502),
        (Outcome::RefusesInitialize, 200),
    ] {
        let world = World::with(config(), ScriptedSpawner::immediate(outcome)).await;
        let response = world.send(Method::POST, "ann/x", None, &rpc("1", "initialize")).await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(refreshes(&world.wallet("ann")), 0, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_openings_at_once_share_one_renewal_and_each_goes_on_with_it() {
    let world = Arc::new(World::new(config()).await);
    let wallet = world.wallet("ann");
    wallet.take_back();
    *wallet.delay.lock().expect("a lock") = Duration::from_secs(3);
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let world = Arc::clone(&world);
        clients.spawn(async move { initialize(&world, "ann/x").await });
    }
    // One of them goes away while it waits; that takes nothing from the others.
    let leaver = Arc::clone(&world);
    let leaving = clients.spawn(async move { initialize(&leaver, "ann/x").await });
    settle().await;
    assert_eq!(refreshes(&wallet), 1);
    leaving.abort();
    let mut good = 0;
    while let Some(client) = clients.join_next().await {
        if let Ok(answer) = client {
            assert_eq!(answer, (200, false));
            good += 1;
        }
    }
    assert_eq!((good, refreshes(&wallet)), (8, 1));
    settle().await;
    assert_eq!((world.reg.stats().attached, world.spawner.running.now()), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_renewal() {
    let world = Arc::new(World::new(config()).await);
    let wallet = world.wallet("ann");
    wallet.take_back();
    *wallet.delay.lock().expect("a lock") = Duration::from_secs(3600);
    let mut clients = JoinSet::new();
    let asked = Arc::clone(&world);
    clients.spawn(async move { initialize(&asked, "ann/x").await });
    settle().await;
    assert_eq!(refreshes(&wallet), 1);
    let begun = tokio::time::Instant::now();
    world.reg.stop().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    clients.join_next().await.expect("a client").expect("no panic");
}
