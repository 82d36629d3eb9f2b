//! Stops, crashes and restarts of the broker, and the tokens and sessions that survive them.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use testkit::{
    Browser,
    forgejo::{Fault, Times},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::harness::{
    FORGEJO_TOKEN_ENDPOINT, Harness, SHORT_IDLE_TIMEOUT, login_of, open_session, password, start_endless_call,
};

#[tokio::test]
async fn unresponsive_forgejo_does_not_delay_the_stop() {
    let mut harness = Harness::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
    let client = harness.client();
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.register().await.unwrap();
    // Forgejo does not respond to the exchange of the code.
    harness.forgejo.inject(
        FORGEJO_TOKEN_ENDPOINT,
        Fault::Delay(Duration::from_secs(600)),
        Times::UntilCleared,
    );
    let mut signing_in = JoinSet::new();
    signing_in.spawn(async move {
        let outcome = client.authorize(&mut Browser::new(), "alice", &password("alice")).await;
        assert!(outcome.is_err());
    });
    harness
        .forgejo
        .wait_for(|counters| counters.requests_to(FORGEJO_TOKEN_ENDPOINT) > 0)
        .await;

    let status = timeout(Duration::from_secs(30), harness.broker.terminate()).await;
    assert!(status.expect("the stop has a deadline").unwrap().success());
}

#[tokio::test]
async fn killed_broker_leaves_no_child() {
    let mut harness = Harness::new(&[]).await;
    let _idle = harness.in_session("alice").await;
    // A child with a call in flight would not exit merely because its standard input closes.
    let busy = harness.in_session("bob").await;
    let mut calls = start_endless_call(&harness, busy).await;
    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 2);
    harness.broker.kill().await.unwrap();
    for child in children {
        child.exited().await.unwrap();
    }
    calls.abort_all();
}

#[tokio::test]
async fn tokens_survive_a_restart() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    harness.restart().await;

    // The access token is still valid, and so is the Forgejo token of its account.
    let again = client.another_session();
    open_session(&again).await;
    assert_eq!(login_of(&again).await, "alice");

    client.refresh().await.unwrap();
    let renewed = client.another_session();
    open_session(&renewed).await;
    assert_eq!(login_of(&renewed).await, "alice");
}

#[tokio::test]
async fn ended_session_is_still_404_after_a_restart() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let id = client.session_id().unwrap();
    client.delete().await.unwrap();
    for _ in 0..2 {
        harness.restart().await;
        client.set_session_id(Some(&id));
        let (answer, _) = client.request("ping", json!({})).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        client.set_session_id(Some(&"0".repeat(48)));
        let (answer, _) = client.request("ping", json!({})).await.unwrap();
        assert_eq!(answer.status, StatusCode::GONE);
    }
}

#[tokio::test]
async fn tokens_survive_a_killed_broker() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.signed_in("bob").await;
    harness.kill_and_restart().await;
    open_session(&client).await;
    assert_eq!(login_of(&client).await, "bob");
}

#[tokio::test]
async fn sessions_survive_a_killed_broker() {
    let mut harness = Harness::new(&SHORT_IDLE_TIMEOUT).await;
    let alice = harness.in_session("alice").await;
    let second = alice.another_session();
    open_session(&second).await;
    // A record is written less than a second after its session has become dormant.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    harness.kill_and_restart().await;
    assert!(
        harness.broker.children().unwrap().is_empty(),
        "a restored session has no child before its next request"
    );
    for session in [&alice, &second] {
        assert_eq!(login_of(session).await, "alice");
    }
    let stored = std::fs::read(harness.broker.directory().join("broker.db")).unwrap();
    let in_plain_text = |text: &[u8]| stored.windows(text.len()).any(|window| window == text);
    assert!(
        !in_plain_text(alice.session_id().unwrap().as_bytes()) && !in_plain_text(b"clientInfo"),
        "a secret is in the database"
    );
}
