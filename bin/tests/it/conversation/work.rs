//! Work in progress keeps its child, whether or not a client is connected: calls, open questions
//! and tasks. A session has at most one child besides the one that serves it.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Client, broker::Process};
use tokio::time::timeout;

use super::{
    IDLE, SOON,
    calls::{OpenCall, accept, nonces},
    next_message, rotate, text_of,
};
use crate::harness::{Harness, SHORT_IDLE_TIMEOUT, messages::tool_call_request};

/// Kills a child that is stopped in the middle of a call soon after the stop.
const SHORT_STOP_GRACE: (&str, &str) = ("child.stop_grace", "500ms");

async fn with_short_idle_timeout() -> Harness {
    Harness::new(&[SHORT_IDLE_TIMEOUT[0], SHORT_IDLE_TIMEOUT[1], SHORT_STOP_GRACE]).await
}

/// Reads the response to a call from a resumed stream.
async fn resumed_response(client: &Client, last_event_id: &str, id: &str) -> Value {
    let mut resumed = client.listen(Some(last_event_id)).await.unwrap();
    let message = next_message(&mut resumed).await;
    assert_eq!(message["id"], id, "{message}");
    message
}

/// Opens another session, and checks that it becomes idle while the one with this child, which was
/// used earlier, does not.
async fn assert_outlives_another_session(harness: &Harness, child: Process) {
    let _bob = harness.in_session("bob").await;
    let children = harness.broker.children().unwrap();
    let his = children.into_iter().find(|other| *other != child);
    his.expect("his session has a child").exited().await.unwrap();
    // The log may be read after the end of the process is noticed.
    harness.broker.log().contains(IDLE).await;
    assert_eq!(
        harness.broker.log().count(IDLE),
        1,
        "the session with work in progress is idle"
    );
    assert!(child.is_alive());
}

#[tokio::test]
async fn call_without_a_client_is_finished_however_short_the_idle_timeout() {
    let harness = with_short_idle_timeout().await;
    let alice = harness.in_session("alice").await;
    let stamp = tool_call_request("slow", "test_stamp", &json!({ "mark": "m", "ms": 5_000 }));
    let last = OpenCall::post(&alice, &json!("slow"), stamp).await.leave().await;
    let log = harness.broker.log();
    tokio::select! {
        () = log.contains("gave m") => {}
        () = log.contains(IDLE) => panic!("the child is stopped in the middle of its call"),
    }
    let response = resumed_response(&alice, &last, "slow").await;
    assert_eq!(text_of(&response)["mark"], "m");
}

#[tokio::test]
async fn open_question_keeps_its_child_however_short_the_idle_timeout() {
    let harness = with_short_idle_timeout().await;
    let alice = harness.in_session("alice").await;
    let child = harness.only_child();
    let mut call = OpenCall::ask(&alice, "asks", "q1", "sure?").await;
    let question = call.question().await;
    let last = call.leave().await;
    assert_outlives_another_session(&harness, child).await;
    accept(&alice, &question, "yes").await;
    let response = resumed_response(&alice, &last, "asks").await;
    assert_eq!(nonces(&response), ["yes"]);
}

#[tokio::test]
async fn task_keeps_its_child_for_its_ttl() {
    let harness = with_short_idle_timeout().await;
    let alice = harness.in_session("alice").await;
    let child = harness.only_child();
    let ttl = 10_000;
    let params = json!({ "name": "test_task", "arguments": { "ttl": ttl }, "task": { "ttl": ttl } });
    let (answer, id) = alice.request("tools/call", params).await.unwrap();
    let task = answer.response_to(&id).unwrap()["result"]["task"].clone();
    assert_eq!(task["status"], "working", "{}", answer.text());
    assert_outlives_another_session(&harness, child).await;
    harness.wait_for_children(0).await;
}

#[tokio::test]
async fn call_without_a_client_is_finished_by_the_child_that_was_replaced() {
    let harness = Harness::new(&[SHORT_STOP_GRACE]).await;
    let alice = harness.in_session("alice").await;
    let old = harness.only_child();
    let stamp = tool_call_request("slow", "test_stamp", &json!({ "mark": "m", "ms": 4_000 }));
    let last = OpenCall::post(&alice, &json!("slow"), stamp).await.leave().await;
    rotate(&harness, "alice").await;
    // Not in the middle of its call: it has given its answer.
    harness.broker.log().contains("gave m").await;
    let response = resumed_response(&alice, &last, "slow").await;
    assert_eq!(text_of(&response)["pid"], old.pid);
    old.exited().await.unwrap();
}

#[tokio::test]
async fn question_without_a_client_keeps_the_child_that_was_replaced() {
    let harness = Harness::new(&[SHORT_STOP_GRACE]).await;
    let alice = harness.in_session("alice").await;
    let old = harness.only_child();
    let mut call = OpenCall::ask(&alice, "asks", "q1", "sure?").await;
    let question = call.question().await;
    let last = call.leave().await;
    rotate(&harness, "alice").await;
    accept(&alice, &question, "yes").await;
    let response = resumed_response(&alice, &last, "asks").await;
    assert_eq!(
        (nonces(&response), &text_of(&response)["pid"]),
        (vec![json!("yes")], &json!(old.pid))
    );
    old.exited().await.unwrap();
}

/// Each sign-in wants to rotate the session, and each child has a call that does not end.
#[tokio::test]
async fn session_has_at_most_two_children_however_often_its_user_signs_in() {
    let harness = Harness::new(&[("session.max_sessions", "2")]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = Vec::new();
    for id in 0..5 {
        let endless = json!({ "ms": 600_000 });
        calls.push(OpenCall::start(&alice, id, "test_sleep", endless).await);
        harness.signed_in("alice").await;
    }
    let settled = timeout(Duration::from_secs(5), harness.wait_for_children(2)).await;
    let children = harness.broker.children().unwrap().len();
    assert!(settled.is_ok(), "the session has {children} children");
    // The quota counts sessions that a rotation could not be refused to.
    for child in harness.broker.children().unwrap() {
        child.kill().unwrap();
    }
    for mut call in calls {
        let response = timeout(SOON, call.response())
            .await
            .expect("each call ends with its child");
        assert!(response["error"].is_object(), "{response}");
    }
}
