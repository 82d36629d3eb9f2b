//! `initialize` without a session id opens a session. A failed opening leaves nothing.

use std::time::Duration;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use session::{
    Config, Stats,
    testing::{LATE_STREAM_DELAY, SpawnOutcome},
};

use crate::harness::{Harness, body_text, durable, rpc, run_ready_tasks, session_id};

#[tokio::test(start_paused = true)]
async fn initialize_spawns_and_answers_with_a_new_id() {
    let harness = Harness::plain(Config::default());
    let (a, b) = (harness.open("ann/x").await, harness.open("ann/x").await);
    assert_ne!(a, b);
    assert_eq!(a.len(), 48);
    assert!(a.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)));
    assert_eq!(harness.spawner.spawn_count(), 2);
    assert!(harness.spawner.orders().iter().all(|order| order.snapshot.is_none()));
    assert_eq!(
        harness.registry.stats(),
        Stats {
            attached: 2,
            ..Stats::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn tag_is_no_part_of_the_id() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    assert!(!id.contains(&*harness.spawner.last_order().tag));
}

#[tokio::test(start_paused = true)]
async fn request_without_caller_is_500_and_spawns_nothing() {
    let harness = Harness::plain(durable());
    let id = harness.open("ann/x").await;
    harness.spawner.last_backend().die();
    run_ready_tasks().await;
    for id in [None, Some(id.as_str())] {
        let mut request = harness.request(Method::POST, "ann/x", id, &rpc("7", "initialize"));
        request.extensions_mut().clear();
        let response = harness.registry.serve(request).await.response;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(body_text(response).await.contains(r#""id":7"#));
    }
    assert_eq!(harness.spawner.spawn_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_start_is_answered_with_the_request_id_and_without_the_reason() {
    for (outcome, status, retry_after) in [
        (SpawnOutcome::Failed, 502, Some("1")),
        (SpawnOutcome::Unavailable, 503, Some("5")),
        (SpawnOutcome::Credentials, 401, None),
    ] {
        let harness = Harness::plain_with_outcome(Config::default(), outcome);
        let initialize = rpc(r#""a\u0062""#, "initialize");
        let served = harness.serve(Method::POST, "ann/x", None, &initialize).await;
        assert_eq!(served.sign_in_required, outcome == SpawnOutcome::Credentials);
        assert!(served.session.is_some());
        let response = served.response;
        assert_eq!(response.status().as_u16(), status);
        let header = response.headers().get("retry-after");
        assert_eq!(header.map(|value| value.to_str().expect("text")), retry_after);
        assert_eq!(session_id(&response), None);
        let body = body_text(response).await;
        assert!(
            body.starts_with(r#"{"jsonrpc":"2.0","id":"a\u0062","error":{"#),
            "{body}"
        );
        assert!(!body.contains("SECRET-REASON"), "{body}");
        run_ready_tasks().await;
        assert_eq!(harness.registry.stats(), Stats::default());
    }
}

#[tokio::test(start_paused = true)]
async fn slow_start_times_out() {
    let harness = Harness::plain_manual(Config::default());
    let before = tokio::time::Instant::now();
    assert_eq!(harness.initialize("ann/x").await.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(before.elapsed(), Config::default().start_timeout);
    assert_eq!(harness.registry.stats(), Stats::default());
    assert!(
        !harness.spawner.resolve_last(SpawnOutcome::Ready),
        "the spawn was dropped"
    );
}

#[tokio::test(start_paused = true)]
async fn initialize_answer_after_the_deadline_opens_no_session() {
    for (start_timeout, opened) in [(LATE_STREAM_DELAY / 2, false), (LATE_STREAM_DELAY * 2, true)] {
        let config = Config {
            start_timeout,
            ..Config::default()
        };
        let harness = Harness::plain_with_outcome(config, SpawnOutcome::StreamsInitializeLate);
        let initialize = harness.initialize_in_background("ann/x");
        run_ready_tasks().await;
        assert_eq!(harness.registry.stats().opening, 1);
        // The machine stalls: when it continues, the deadline has passed and the answer is ready.
        tokio::time::advance(LATE_STREAM_DELAY * 3 / 2).await;
        let response = initialize.output().await;
        assert_eq!(session_id(&response).is_some(), opened);
        assert_eq!(response.status() == StatusCode::OK, opened);
        run_ready_tasks().await;
        assert_eq!(
            (harness.registry.stats().attached, harness.spawner.running()),
            (usize::from(opened), usize::from(opened))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refused_handshake_opens_no_session() {
    let harness = Harness::plain_with_outcome(Config::default(), SpawnOutcome::RefusesInitialize);
    let response = harness.initialize("ann/x").await;
    assert_eq!(response.status(), StatusCode::OK, "the answer of the backend itself");
    assert_eq!(session_id(&response), None);
    run_ready_tasks().await;
    assert_eq!(harness.spawner.last_backend().stop_count(), 1);
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn streamed_initialize_answer_keeps_the_session_active_until_it_ends() {
    let harness = Harness::plain_with_outcome(Config::default(), SpawnOutcome::StreamsInitialize);
    let response = harness.initialize("ann/x").await;
    let id = session_id(&response).expect("an id");
    assert_eq!(id.len(), 48, "the id of the registry, not that of the backend");
    tokio::time::sleep(Config::default().idle_timeout * 3).await;
    assert_eq!(harness.registry.stats().attached, 1);
    harness.spawner.last_backend().close_streams();
    drop(response.into_body().collect().await);
    tokio::time::sleep(Config::default().idle_timeout * 2).await;
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn client_that_disconnects_cancels_its_opening() {
    // While the backend starts, and while it has not answered the handshake.
    for resolved in [None, Some(SpawnOutcome::IgnoresInitialize)] {
        let harness = Harness::plain_manual(Config::default());
        let initialize = harness.initialize_in_background("ann/x");
        run_ready_tasks().await;
        assert_eq!(harness.registry.stats().opening, 1);
        if let Some(outcome) = resolved {
            assert!(harness.spawner.resolve_last(outcome));
            run_ready_tasks().await;
            assert_eq!(harness.spawner.running(), 1);
        }
        drop(initialize);
        run_ready_tasks().await;
        assert_eq!(harness.registry.stats(), Stats::default());
        assert_eq!(harness.spawner.running(), 0);
        if resolved.is_none() {
            assert!(
                !harness.spawner.resolve_last(SpawnOutcome::Ready),
                "the spawn was dropped"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn backend_that_dies_in_the_handshake_opens_no_session() {
    let harness = Harness::plain_with_outcome(Config::default(), SpawnOutcome::IgnoresInitialize);
    let initialize = harness.initialize_in_background("ann/x");
    run_ready_tasks().await;
    harness.spawner.last_backend().die();
    let response = initialize.output().await;
    assert_eq!(session_id(&response), None);
    assert!(body_text(response).await.contains(r#""id":1,"error""#));
    run_ready_tasks().await;
    assert_eq!(harness.registry.stats(), Stats::default());
}

#[tokio::test(start_paused = true)]
async fn backend_never_sees_the_credentials_of_the_client() {
    let harness = Harness::plain(Config::default());
    let id = harness.open("ann/x").await;
    let mut request = harness.request(Method::POST, "ann/x", Some(&id), &rpc("2", "ping"));
    for name in ["authorization", "cookie", "proxy-authorization"] {
        request.headers_mut().insert(name, "secret".parse().expect("a value"));
    }
    let version = "2025-11-25".parse().expect("a value");
    request.headers_mut().insert("mcp-protocol-version", version);
    assert_eq!(harness.registry.serve(request).await.response.status(), StatusCode::OK);
    let requests = harness.spawner.last_backend().requests();
    let names: Vec<_> = requests.last().expect("a request").headers().keys().collect();
    assert_eq!(names, ["mcp-protocol-version"]);
}

#[tokio::test(start_paused = true)]
async fn dropped_registry_ends_its_sessions() {
    let config = Config {
        reap_interval: Duration::ZERO,
        ..Config::default()
    };
    let harness = Harness::plain(config);
    harness.open("ann/x").await;
    let Harness { registry, spawner, .. } = harness;
    drop(registry);
    run_ready_tasks().await;
    assert!(spawner.last_backend().has_exited());
}
