//! A session that sleeps: what wakes it, and what does not.

use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::{
    CHILD_STARTED, UNSUPPORTED_VERSION, call,
    calls::{Question, accept, cancel},
    next_message, with_dormant_session,
};
use crate::harness::{Harness, login_of, messages::tools_list_request};

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

/// In this order: a refused GET wakes no session, and a DELETE that is not refused ends it.
const METHODS: [Method; 3] = [Method::GET, Method::POST, Method::DELETE];

/// Checks that only this many children have started, once another user's session has one.
async fn assert_started(harness: &Harness, children: usize) {
    harness.in_session("bob").await;
    assert_eq!(harness.broker.log().count(CHILD_STARTED), children + 1);
}

#[tokio::test]
async fn cancellation_of_nothing_starts_no_child() {
    let (harness, alice) = with_dormant_session(&[]).await;
    cancel(&alice, &json!(7)).await;
    assert_started(&harness, 1).await;
}

#[tokio::test]
async fn answer_to_no_question_starts_no_child() {
    let (harness, alice) = with_dormant_session(&[]).await;
    let question = Question {
        id: json!("q1"),
        text: String::new(),
    };
    accept(&alice, &question, "yes").await;
    assert_started(&harness, 1).await;
}

#[tokio::test]
async fn unsupported_version_is_400_for_each_method_and_starts_no_child() {
    let (harness, alice) = with_dormant_session(&[]).await;
    assert_refused(&alice).await;
    assert_started(&harness, 1).await;
    assert_eq!(login_of(&alice).await, "alice", "the session goes on");
}

#[tokio::test]
async fn unsupported_version_is_400_for_each_method_while_a_child_runs() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    assert_refused(&alice).await;
    assert_eq!(login_of(&alice).await, "alice", "the session goes on");
}

async fn assert_refused(client: &testkit::Client) {
    let mut headers = client.headers();
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(UNSUPPORTED_VERSION));
    headers.insert(
        http::header::ACCEPT,
        HeaderValue::from_static("application/json, text/event-stream"),
    );
    let mut statuses = Vec::new();
    for method in METHODS {
        let body = if method == Method::POST {
            tools_list_request(1)
        } else {
            String::new()
        };
        let answer = client.raw(method.clone(), headers.clone(), body);
        // A stream that stays open is no refusal.
        let answer = tokio::time::timeout(super::SOON, answer).await;
        statuses.push((method, answer.map(|answer| answer.unwrap().status).ok()));
    }
    let refused = Some(StatusCode::BAD_REQUEST);
    let expected = METHODS.map(|method| (method, refused));
    assert_eq!(statuses, expected);
}

#[tokio::test]
async fn stream_that_was_opened_while_the_session_slept_stays_open_when_it_wakes() {
    let (_harness, alice) = with_dormant_session(&[]).await;
    let mut listening = alice.listen(None).await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    call(&alice, "test_announce", Value::Null).await;
    let message = next_message(&mut listening).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn stream_stays_open_when_another_child_serves_the_session() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut listening = alice.listen(None).await.unwrap();
    super::rotate(&harness, "alice").await;
    call(&alice, "test_announce", Value::Null).await;
    let message = next_message(&mut listening).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
}
