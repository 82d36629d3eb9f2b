//! A request id that comes again after its connection was lost.

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{Client, client::Answer};
use tokio::{task::JoinSet, time::timeout};

use super::{SOON, text_of};
use crate::harness::{Harness, messages::tool_call_request};

/// Sends a message until its id is free: the broker may not have noticed yet that the first
/// connection is closed.
async fn post_until_accepted(client: &Client, message: &str) -> Answer {
    let accepted = timeout(SOON, async {
        loop {
            let answer = client.post(message.to_owned()).await.unwrap();
            if answer.status != StatusCode::CONFLICT {
                return answer;
            }
        }
    });
    accepted.await.expect("the id of a lost connection is free")
}

/// Sends a message and closes its connection once a child has taken the call.
async fn post_and_disconnect(harness: &Harness, client: &Client, message: &str, taken: &str) {
    let mut lost = JoinSet::new();
    let (request, message) = (client.another_session(), message.to_owned());
    request.set_session_id(client.session_id().as_deref());
    lost.spawn(async move { request.post(message).await.map(drop) });
    harness.broker.log().contains(taken).await;
    lost.shutdown().await;
}

#[tokio::test]
async fn request_that_is_sent_again_gets_the_answer_of_the_running_call() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let message = tool_call_request("same", "test_stamp", &json!({ "mark": "m", "ms": 4_000 }));
    post_and_disconnect(&harness, &alice, &message, "took m").await;
    let answer = post_until_accepted(&alice, &message).await;
    let response = answer.response_to(&json!("same")).cloned().unwrap_or_default();
    assert_eq!(text_of(&response)["mark"], "m", "{}", answer.text());
    assert_eq!(harness.broker.log().count("took m"), 1, "the call runs once");
}

#[tokio::test]
async fn another_request_with_the_id_of_a_lost_one_runs_and_the_lost_one_is_cancelled() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let child = harness.only_child();
    let first = tool_call_request("same", "test_sleep", &json!({ "ms": 600_000 }));
    post_and_disconnect(&harness, &alice, &first, "tool=test_sleep").await;
    let second = tool_call_request("same", "test_echo", &json!({ "text": "second" }));
    let answer = post_until_accepted(&alice, &second).await;
    let response: Value = answer.response_to(&json!("same")).cloned().unwrap_or_default();
    assert_eq!(text_of(&response)["text"], "second", "{}", answer.text());
    let cancelled = format!("got notifications/cancelled pid={}", child.pid);
    harness.broker.log().contains(&cancelled).await;
}
