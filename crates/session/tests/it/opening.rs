//! `initialize`: what it takes to get a session, and what is left when one does not come to be.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use session::{Config, SignInRequired, Stats};
use tokio::task::JoinSet;

use crate::fakes::{
    Outcome, STREAMED_AFTER, ScriptedSpawner, lock, open, post, registry, request, rpc, said, session_id, settle, text,
};

#[tokio::test(start_paused = true)]
async fn initialize_spawns_and_answers_with_a_fresh_id() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let (a, b) = (open(&reg, "ann/x").await, open(&reg, "ann/x").await);
    assert_ne!(a, b);
    assert_eq!(a.len(), 48);
    assert!(a.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
    assert_eq!(spawner.orders(), 2);
    assert!(lock(&spawner.orders).iter().all(|order| order.snapshot.is_none()));
    assert_eq!(
        reg.stats(),
        Stats {
            attached: 2,
            dormant: 0,
            opening: 0,
            stopping: 0
        }
    );
}

#[tokio::test(start_paused = true)]
async fn the_tag_says_nothing_of_the_id() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    assert!(!id.contains(&*spawner.last_tag()));
}

#[tokio::test(start_paused = true)]
async fn without_a_caller_nothing_is_spawned() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let mut asked = request(Method::POST, "ann/x", None, &rpc("7", "initialize"));
    asked.extensions_mut().clear();
    let response = reg.serve(asked).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text(response).await.contains(r#""id":7"#));
    assert_eq!(spawner.orders(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_told_with_the_id_and_without_the_reason() {
    for (outcome, status, retry) in [
        (Outcome::Failed, 502, None),
        (Outcome::Unavailable, 503, Some("5")),
        (Outcome::Credentials, 401, None),
    ] {
        let spawner = ScriptedSpawner::immediate(outcome);
        let reg = registry(&spawner, Config::default());
        let response = post(&reg, "ann/x", None, &rpc(r#""a\u0062""#, "initialize")).await;
        assert_eq!(response.status().as_u16(), status);
        let after = response.headers().get("retry-after").map(|v| v.to_str().expect("text"));
        assert_eq!(after, retry);
        let needs_sign_in = response.extensions().get::<SignInRequired>().is_some();
        assert_eq!(needs_sign_in, outcome == Outcome::Credentials);
        assert_eq!(session_id(&response), None);
        let body = text(response).await;
        assert!(
            body.starts_with(r#"{"jsonrpc":"2.0","id":"a\u0062","error":{"#),
            "{body}"
        );
        assert!(!body.contains("SECRET-REASON"), "{body}");
        settle().await;
        assert_eq!(reg.stats(), Stats::default());
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_given_up() {
    let spawner = ScriptedSpawner::gated();
    let reg = registry(&spawner, Config::default());
    let before = tokio::time::Instant::now();
    let (status, _) = said(&reg, "ann/x", None, &rpc("1", "initialize")).await;
    assert_eq!(status, 502);
    assert_eq!(before.elapsed(), Config::default().start_timeout);
    assert_eq!(reg.stats(), Stats::default());
    assert!(
        !spawner.decide(&spawner.last_tag(), Outcome::Good),
        "the spawn was dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_after_the_deadline_opens_nothing() {
    for (limit, opened) in [(STREAMED_AFTER / 2, false), (STREAMED_AFTER * 2, true)] {
        let spawner = ScriptedSpawner::immediate(Outcome::StreamsInitializeLate);
        let reg = registry(
            &spawner,
            Config {
                start_timeout: limit,
                ..Config::default()
            },
        );
        let mut clients = JoinSet::new();
        let asked = std::sync::Arc::clone(&reg);
        clients.spawn(async move { post(&asked, "ann/x", None, &rpc("1", "initialize")).await });
        settle().await;
        assert_eq!(reg.stats().opening, 1);
        // The machine stalls: when it goes on, the deadline is over and the answer is there.
        tokio::time::advance(STREAMED_AFTER * 3 / 2).await;
        let response = clients.join_next().await.expect("a client").expect("an answer");
        assert_eq!(session_id(&response).is_some(), opened);
        assert_eq!(response.status() == StatusCode::OK, opened);
        settle().await;
        assert_eq!(
            (reg.stats().attached, spawner.running.now()),
            (usize::from(opened), usize::from(opened))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_handshake_leaves_no_session() {
    let spawner = ScriptedSpawner::immediate(Outcome::RefusesInitialize);
    let reg = registry(&spawner, Config::default());
    let response = post(&reg, "ann/x", None, &rpc("1", "initialize")).await;
    assert_eq!(response.status(), StatusCode::OK, "the backend's own answer");
    assert_eq!(session_id(&response), None);
    settle().await;
    assert_eq!(spawner.last().stops.load(Ordering::SeqCst), 1);
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn a_handshake_answered_by_a_stream_keeps_the_session_and_pins_it() {
    let spawner = ScriptedSpawner::immediate(Outcome::StreamsInitialize);
    let reg = registry(&spawner, Config::default());
    let response = post(&reg, "ann/x", None, &rpc("1", "initialize")).await;
    let id = session_id(&response).expect("an id");
    assert_eq!(id.len(), 48, "the registry's id, not one of the backend");
    tokio::time::sleep(Config::default().idle_timeout * 3).await;
    assert_eq!(reg.stats().attached, 1);
    lock(&spawner.last().streams).clear();
    drop(response.into_body().collect().await);
    tokio::time::sleep(Config::default().idle_timeout * 2).await;
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_opening_with_it() {
    // While the backend starts, and while it has not answered the handshake.
    for decided in [None, Some(Outcome::SilentInitialize)] {
        let spawner = ScriptedSpawner::gated();
        let reg = registry(&spawner, Config::default());
        let mut clients = JoinSet::new();
        let asked = std::sync::Arc::clone(&reg);
        clients.spawn(async move { post(&asked, "ann/x", None, &rpc("1", "initialize")).await });
        settle().await;
        let tag = spawner.last_tag();
        assert_eq!(reg.stats().opening, 1);
        if let Some(outcome) = decided {
            assert!(spawner.decide(&tag, outcome));
            settle().await;
            assert_eq!(spawner.running.now(), 1);
        }
        clients.shutdown().await;
        settle().await;
        assert_eq!(reg.stats(), Stats::default());
        assert_eq!(spawner.running.now(), 0);
        if decided.is_none() {
            assert!(!spawner.decide(&tag, Outcome::Good), "the spawn was dropped");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_dies_in_the_handshake_leaves_no_session() {
    let spawner = ScriptedSpawner::immediate(Outcome::SilentInitialize);
    let reg = registry(&spawner, Config::default());
    let mut clients = JoinSet::new();
    let asked = std::sync::Arc::clone(&reg);
    clients.spawn(async move { post(&asked, "ann/x", None, &rpc("1", "initialize")).await });
    settle().await;
    spawner.last().die();
    let response = clients.join_next().await.expect("a client").expect("no panic");
    assert_eq!(session_id(&response), None);
    assert!(text(response).await.contains(r#""id":1,"error""#));
    settle().await;
    assert_eq!(reg.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn the_clients_credentials_stay_outside_of_the_backend() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, Config::default());
    let id = open(&reg, "ann/x").await;
    let mut asked = request(Method::POST, "ann/x", Some(&id), &rpc("2", "ping"));
    for name in ["authorization", "cookie", "proxy-authorization"] {
        asked.headers_mut().insert(name, "secret".parse().expect("a value"));
    }
    asked
        .headers_mut()
        .insert("mcp-protocol-version", "2025-11-25".parse().expect("a value"));
    assert_eq!(reg.serve(asked).await.status(), StatusCode::OK);
    let backend = spawner.last();
    let seen = lock(&backend.seen);
    let names: Vec<_> = seen.last().expect("a request").1.keys().map(|n| n.as_str()).collect();
    assert_eq!(names, ["mcp-protocol-version"]);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_registry_ends_its_sessions() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(
        &spawner,
        Config {
            reap_interval: Duration::ZERO,
            ..Config::default()
        },
    );
    open(&reg, "ann/x").await;
    drop(reg);
    settle().await;
    assert!(spawner.last().is_gone());
}
