//! What lives and what dies: the broker, its children, the tokens.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use testkit::{
    Browser, Client,
    forgejo::{Fault, Times},
};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Harness, login_of, open, password};

#[tokio::test]
async fn a_forgejo_that_hangs_does_not_hold_the_stop_up() {
    let mut harness = Harness::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
    let client = harness.client();
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.register().await.unwrap();
    // The exchange of the code at Forgejo never gets its answer.
    harness.forgejo.inject(
        "/login/oauth/access_token",
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
        .wait_for(|counters| counters.requests_to("/login/oauth/access_token") > 0)
        .await;

    let status = timeout(Duration::from_secs(30), harness.broker.terminate()).await;
    assert!(status.expect("the stop has a deadline").unwrap().success());
}

#[tokio::test]
async fn kill_9_of_the_broker_leaves_no_child() {
    let mut harness = Harness::new(&[]).await;
    let _idle = harness.in_session("alice").await;
    // With a call in flight, the end of its standard input alone would not end a child.
    let busy = harness.in_session("bob").await;
    let mut calls = call_that_hangs(&harness, busy).await;
    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 2);
    harness.broker.kill().await.unwrap();
    for child in children {
        child.exited().await.unwrap();
    }
    calls.abort_all();
}

#[tokio::test]
async fn tokens_outlive_a_restart_of_the_broker() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    harness.broker.terminate().await.unwrap();
    harness.broker.start_again().await.unwrap();

    // The bearer is still good, and so is the account behind it.
    let again = client.another_session();
    open(&again).await;
    assert_eq!(login_of(&again).await, "alice");

    client.refresh().await.unwrap();
    let renewed = client.another_session();
    open(&renewed).await;
    assert_eq!(login_of(&renewed).await, "alice");
}

#[tokio::test]
async fn an_ended_session_is_404_after_a_restart_too() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.in_session("alice").await;
    let id = client.session_id().unwrap();
    client.delete().await.unwrap();
    for _ in 0..2 {
        harness.broker.terminate().await.unwrap();
        harness.broker.start_again().await.unwrap();
        client.set_session_id(Some(&id));
        let (answer, _) = client.request("ping", json!({})).await.unwrap();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        client.set_session_id(Some(&"0".repeat(48)));
        let (answer, _) = client.request("ping", json!({})).await.unwrap();
        assert_eq!(answer.status, StatusCode::GONE);
    }
}

#[tokio::test]
async fn tokens_outlive_a_broker_that_was_killed() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.signed_in("bob").await;
    harness.broker.kill().await.unwrap();
    harness.broker.start_again().await.unwrap();
    open(&client).await;
    assert_eq!(login_of(&client).await, "bob");
}

pub(crate) type Call = (testkit::client::Answer, serde_json::Value, Client);

/// Begins a call that only ends with its child, and returns once the child is at it.
pub(crate) async fn call_that_hangs(harness: &Harness, session: Client) -> JoinSet<Call> {
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let params = json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } });
        let (answer, id) = session.request("tools/call", params).await.unwrap();
        (answer, id, session)
    });
    // As the child says it: a detailed log has the name of the tool before the child has heard of it.
    harness.broker.log().contains("tool=test_sleep").await;
    calls
}
