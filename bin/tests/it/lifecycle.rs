//! What lives and what dies: the broker, its children, the tokens.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use testkit::{
    Browser, Client,
    broker::Process,
    forgejo::{Fault, Times},
};
use tokio::{task::JoinSet, time::timeout};

use crate::bed::{Bed, login_of, open, password};

#[tokio::test]
async fn sigterm_leaves_no_child_and_exits_with_success() {
    let mut bed = Bed::new(&[]).await;
    let _alice = bed.in_session("alice").await;
    let _bob = bed.in_session("bob").await;
    let children = bed.broker.children().unwrap();
    assert_eq!(children.len(), 2);
    assert!(bed.broker.terminate().await.unwrap().success());
    assert!(children.iter().all(|child| !child.is_alive()));
}

#[tokio::test]
async fn sigterm_leaves_no_child_that_waits_for_a_call() {
    let mut bed = Bed::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
    let session = bed.in_session("alice").await;
    let mut calls = call_that_hangs(&bed, session).await;
    let children = bed.broker.children().unwrap();
    assert!(bed.broker.terminate().await.unwrap().success());
    assert!(children.iter().all(|child| !child.is_alive()));
    calls.abort_all();
}

#[tokio::test]
async fn a_forgejo_that_hangs_does_not_hold_the_stop_up() {
    let mut bed = Bed::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
    let client = bed.client();
    client.probe().await.unwrap();
    client.discover().await.unwrap();
    client.register().await.unwrap();
    // The exchange of the code at Forgejo never gets its answer.
    bed.forgejo.inject(
        "/login/oauth/access_token",
        Fault::Delay(Duration::from_secs(600)),
        Times::UntilCleared,
    );
    let mut signing_in = JoinSet::new();
    signing_in.spawn(async move {
        let outcome = client.authorize(&mut Browser::new(), "alice", &password("alice")).await;
        assert!(outcome.is_err());
    });
    let asked = bed
        .forgejo
        .wait_for(|counters| counters.requests_to("/login/oauth/access_token") > 0);
    timeout(Duration::from_secs(30), asked).await.unwrap();

    let status = timeout(Duration::from_secs(30), bed.broker.terminate()).await;
    assert!(status.expect("the stop has a deadline").unwrap().success());
}

#[tokio::test]
async fn kill_9_of_the_broker_leaves_no_child() {
    let mut bed = Bed::new(&[]).await;
    let _idle = bed.in_session("alice").await;
    // With a call in flight, the end of its standard input alone would not end a child.
    let busy = bed.in_session("bob").await;
    let mut calls = call_that_hangs(&bed, busy).await;
    let children = bed.broker.children().unwrap();
    assert_eq!(children.len(), 2);
    bed.broker.kill().await.unwrap();
    for child in children {
        child.gone().await.unwrap();
    }
    calls.abort_all();
}

#[tokio::test]
async fn kill_9_of_a_child_answers_what_waits_and_disturbs_nobody() {
    let bed = Bed::new(&[]).await;
    let bob = bed.in_session("bob").await;
    let before = bed.broker.children().unwrap();
    let alice = bed.in_session("alice").await;
    let hers: Vec<Process> = bed
        .broker
        .children()
        .unwrap()
        .into_iter()
        .filter(|child| !before.contains(child))
        .collect();
    assert_eq!(hers.len(), 1);

    let session = alice.session_id().unwrap();
    let mut calls = call_that_hangs(&bed, alice).await;
    hers[0].kill().unwrap();
    let (answer, id, alice) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let response = answer
        .response_to(&id)
        .expect("the error carries the id of the request");
    assert!(response["error"]["message"].is_string(), "{response}");

    assert_eq!(login_of(&bob).await, "bob");
    // The session goes on with the next child.
    assert_eq!(alice.session_id().unwrap(), session);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(bed.broker.children().unwrap().len(), 2);
}

#[tokio::test]
async fn with_nothing_retained_a_session_ends_with_its_child() {
    let bed = Bed::new(&[("session.retain", "0s")]).await;
    let alice = bed.in_session("alice").await;
    bed.broker.children().unwrap()[0].kill().unwrap();
    bed.broker.log().contains("session ended").await;
    let (answer, id) = alice.request("tools/list", json!({})).await.unwrap();
    assert_eq!(answer.status, 404);
    assert_eq!(answer.json()["id"], id);
    open(&alice.another_session()).await;
}

#[tokio::test]
async fn tokens_and_sessions_outlive_a_restart_of_the_broker() {
    let mut bed = Bed::new(&[]).await;
    let client = bed.in_session("alice").await;
    bed.broker.terminate().await.unwrap();
    bed.broker.start_again().await.unwrap();

    // The bearer is still good, and so is the account behind it.
    let again = client.another_session();
    open(&again).await;
    assert_eq!(login_of(&again).await, "alice");
    // And so is the session: its client notices nothing.
    assert_eq!(login_of(&client).await, "alice");

    client.refresh().await.unwrap();
    let renewed = client.another_session();
    open(&renewed).await;
    assert_eq!(login_of(&renewed).await, "alice");
}

#[tokio::test]
async fn an_ended_session_is_404_after_a_restart_too() {
    let mut bed = Bed::new(&[]).await;
    let client = bed.in_session("alice").await;
    let id = client.session_id().unwrap();
    client.delete().await.unwrap();
    for _ in 0..2 {
        bed.broker.terminate().await.unwrap();
        bed.broker.start_again().await.unwrap();
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
    let mut bed = Bed::new(&[]).await;
    let client = bed.signed_in("bob").await;
    bed.broker.kill().await.unwrap();
    bed.broker.start_again().await.unwrap();
    open(&client).await;
    assert_eq!(login_of(&client).await, "bob");
}

#[tokio::test]
async fn an_idle_session_sleeps_and_wakes() {
    let bed = Bed::new(&[("session.idle_timeout", "2s"), ("session.reap_interval", "100ms")]).await;
    let session = bed.in_session("alice").await;
    let children = bed.broker.children().unwrap();
    children[0].gone().await.unwrap();
    assert_eq!(login_of(&session).await, "alice");
    assert_eq!(bed.broker.children().unwrap().len(), 1);
}

type Call = (testkit::client::Answer, serde_json::Value, Client);

/// Begins a call that only ends with its child, and returns once the child is at it.
async fn call_that_hangs(bed: &Bed, session: Client) -> JoinSet<Call> {
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        let params = json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } });
        let (answer, id) = session.request("tools/call", params).await.unwrap();
        (answer, id, session)
    });
    bed.broker.log().contains("test_sleep").await;
    calls
}
