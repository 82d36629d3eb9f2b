//! Requests without a session id of a client that has initialized before, or never.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{Method, StatusCode};
use session::{
    Config,
    ports::{Conversation as _, GrantId, UserId},
    testing::{ScriptedHost, StartOutcome},
};
use tokio::time::sleep;

use crate::harness::{Harness, INITIALIZED, RETAIN, body_text, durable, lock, rpc, run_ready_tasks, session_id};

async fn hosted(config: Config) -> (Harness, Arc<ScriptedHost>) {
    let host = ScriptedHost::new();
    let harness = Harness::hosted(config, &host).await;
    (harness, host)
}

async fn open(harness: &Harness, who: &str) -> String {
    let response = harness.initialize(who).await;
    session_id(&response).expect("an id")
}

fn last_snapshot(host: &ScriptedHost) -> String {
    let snapshot = host.last_conversation().snapshot().expect("a snapshot");
    String::from_utf8(snapshot.0.into()).expect("text")
}

#[tokio::test(start_paused = true)]
async fn request_reaches_the_session_of_the_last_initialize_only() {
    let (harness, host) = hosted(durable()).await;
    let first = open(&harness, "ann/x").await;
    let conversation = host.last_conversation();
    for _ in 0..2 {
        let response = harness
            .send_routed(Method::POST, "ann/x", "last", &rpc("7", "ping"))
            .await;
        assert_eq!((response.status(), session_id(&response)), (StatusCode::OK, None));
        assert_eq!(body_text(response).await, "server 1");
    }
    assert_eq!(host.conversation_count(), 1, "the same child as with the id");
    conversation.servers()[0].die();
    assert_eq!(harness.call("ann/x", "last").await.1, "server 2");

    let second = open(&harness, "ann/x").await;
    assert_eq!(harness.call("ann/x", "last").await.1, "server 1");
    harness.delete("ann/x", &first).await;
    assert_eq!(harness.call("ann/x", "last").await.1, "server 1");
    assert_eq!(host.conversation_count(), 2);
    assert_eq!(harness.ping("ann/x", &second).await.0, 200);
    assert_eq!(harness.records.initialize_reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn session_is_made_silently_from_the_last_handshake_after_its_end() {
    let (harness, host) = hosted(durable()).await;
    let id = open(&harness, "ann/x").await;
    host.last_conversation().set("settings");
    harness.delete("ann/x", &id).await;
    for _ in 0..3 {
        assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
        assert_eq!(last_snapshot(&host), "opened", "the handshake, and no settings");
    }
    assert_eq!(host.conversation_count(), 2);
    assert_eq!(harness.records.initialize_reads.load(Ordering::SeqCst), 1);
    harness.must_be(404, "ann/x", &id).await;

    // A later handshake has a session of its own.
    let id = open(&harness, "ann/x").await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(host.conversation_count(), 3);
    harness.delete("ann/x", &id).await;
    assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
    assert_eq!(host.conversation_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn session_that_expires_or_does_not_fit_is_made_again() {
    let (harness, host) = hosted(durable()).await;
    open(&harness, "ann/x").await;
    sleep(RETAIN + Duration::from_secs(60)).await;
    assert_eq!(harness.registry.stats().dormant, 0);
    assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
    assert_eq!(last_snapshot(&host), "opened");

    open(&harness, "bob/x").await;
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    host.script([StartOutcome::Unfit]);
    assert_eq!(harness.call("bob/x", "last").await, (200, "server 1".to_owned()));
    assert_eq!(host.conversation_count(), 4);
}

#[tokio::test(start_paused = true)]
async fn grant_that_never_initialized_has_the_default() {
    let (harness, host) = hosted(durable()).await;
    open(&harness, "bob/x").await;
    for _ in 0..2 {
        assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
    }
    assert_eq!(last_snapshot(&host), "default");
    assert_eq!((host.conversation_count(), host.start_count()), (2, 2));
    assert_eq!(harness.records.initialize_reads.load(Ordering::SeqCst), 1);
    // From the first handshake on it is that session's.
    open(&harness, "ann/x").await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(last_snapshot(&host), "opened");
}

#[tokio::test(start_paused = true)]
async fn message_that_needs_no_session_makes_none() {
    let (harness, host) = hosted(durable()).await;
    let passive = async |method| {
        let response = harness.send_routed(method, "ann/x", "last-passive", INITIALIZED).await;
        (response.status().as_u16(), body_text(response).await)
    };
    assert_eq!(passive(Method::POST).await, (202, String::new()));
    assert_eq!(passive(Method::GET).await.0, 405);
    assert_eq!(host.conversation_count(), 0);
    let id = open(&harness, "ann/x").await;
    assert_eq!(passive(Method::POST).await, (200, "server 1".to_owned()));
    assert_eq!(passive(Method::GET).await.0, 200);
    harness.delete("ann/x", &id).await;
    assert_eq!(passive(Method::POST).await, (202, String::new()));
    assert_eq!(passive(Method::GET).await.0, 405);
    // Not even with a handshake at hand does a GET make one.
    let listening = harness.send_routed(Method::GET, "ann/x", "last", "").await;
    assert_eq!(listening.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(passive(Method::POST).await, (200, "server 1".to_owned()));
    assert_eq!(host.conversation_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn restart_keeps_the_last_initialize() {
    let (mut harness, host) = hosted(durable()).await;
    let id = open(&harness, "ann/x").await;
    harness.registry.stop().await;
    harness.restart().await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(harness.registry.stats().attached, 1, "the session of the handshake");
    assert_eq!(harness.records.initialize_reads.load(Ordering::SeqCst), 1);
    harness.delete("ann/x", &id).await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    harness.registry.stop().await;
    harness.restart().await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(last_snapshot(&host), "opened");
    assert_eq!(lock(&harness.records.rows).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn crash_after_the_answer_to_initialize_keeps_it() {
    let (mut harness, _host) = hosted(durable()).await;
    open(&harness, "ann/x").await;
    assert_eq!(
        lock(&harness.records.initializes).len(),
        1,
        "with the record of the session"
    );
    let first = Arc::clone(&harness.registry);
    harness.restart().await;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(harness.registry.stats().attached, 1);
    first.stop().await;
}

#[tokio::test(start_paused = true)]
async fn records_that_cannot_be_read_now_are_a_503() {
    let (harness, host) = hosted(durable()).await;
    *lock(&harness.records.refuses) = true;
    assert_eq!(harness.call("ann/x", "last").await.0, 503);
    assert_eq!(host.conversation_count(), 0);
    *lock(&harness.records.refuses) = false;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn another_registry_on_the_same_records_has_a_session_of_the_same_handshake() {
    let (mut harness, host) = hosted(durable()).await;
    *lock(&harness.records.shared) = true;
    let first = Arc::clone(&harness.registry);
    harness.restart().await;
    let second = std::mem::replace(&mut harness.registry, first);
    let id = open(&harness, "ann/x").await;
    // The second has not heard of the session. It reads the handshake.
    let first = std::mem::replace(&mut harness.registry, second);
    assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
    assert_eq!(last_snapshot(&host), "opened");
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!((host.conversation_count(), host.start_count()), (2, 2));
    harness.registry = first;
    assert_eq!(harness.ping("ann/x", &id).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn revocation_forgets_the_handshake() {
    for with_records in [true, false] {
        let host = ScriptedHost::new();
        let harness = if with_records {
            Harness::hosted(durable(), &host).await
        } else {
            Harness::plain_hosted(durable(), &host).await
        };
        for (who, whole_user) in [("ann/x", false), ("bob/x", true)] {
            open(&harness, who).await;
            if whole_user {
                harness.registry.end_user(&UserId("bob".into())).await;
            } else {
                harness.registry.end_grant(&GrantId(who.into())).await;
            }
            sleep(Duration::from_secs(1)).await;
            assert!(lock(&harness.records.initializes).is_empty());
            // As a grant that never initialized.
            assert_eq!(harness.call(who, "last").await.0, 200);
            assert_eq!(last_snapshot(&host), "default");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_records_the_handshake_is_kept_in_memory() {
    let host = ScriptedHost::new();
    let harness = Harness::plain_hosted(Config::default(), &host).await;
    open(&harness, "ann/x").await;
    host.last_conversation().servers()[0].die();
    run_ready_tasks().await;
    assert_eq!(harness.call("ann/x", "last").await, (200, "server 1".to_owned()));
    assert_eq!(last_snapshot(&host), "opened");
    assert_eq!(host.conversation_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn old_handshake_is_forgotten_when_its_session_has_ended() {
    let (harness, host) = hosted(durable()).await;
    open(&harness, "ann/x").await;
    sleep(Duration::from_secs(91 * 24 * 3600)).await;
    assert!(lock(&harness.records.initializes).is_empty());
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(last_snapshot(&host), "default");
}

#[tokio::test(start_paused = true)]
async fn opening_that_fails_is_no_initialize() {
    let (harness, host) = hosted(durable()).await;
    open(&harness, "ann/x").await;
    *lock(&harness.records.refuses) = true;
    assert_eq!(
        harness.initialize("ann/x").await.status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
    *lock(&harness.records.refuses) = false;
    assert_eq!(harness.call("ann/x", "last").await.0, 200);
    assert_eq!(host.start_count(), 2, "the first session serves");
}

#[tokio::test(start_paused = true)]
async fn plain_spawner_serves_no_request_without_an_id() {
    let harness = Harness::plain(Config::default());
    for (method, body) in [
        (Method::POST, rpc("1", "ping")),
        (Method::POST, INITIALIZED.to_owned()),
        (Method::GET, String::new()),
        (Method::DELETE, String::new()),
    ] {
        let response = harness.send(method.clone(), "ann/x", None, &body).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{method}");
    }
    assert_eq!(harness.spawner.spawn_count(), 0);
}
