//! Answers and progress that break the protocol.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use super::{SOON, call, next_message};
use crate::harness::{Harness, login_of, messages::tool_call_request};

/// True if a warning of the broker names this method.
fn is_named_in_a_warning(log: &str, method: &str) -> bool {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut warnings = events.filter(|event| event["level"] == "WARN" || event["level"] == "ERROR");
    warnings.any(|event| event.to_string().contains(method))
}

#[tokio::test]
async fn request_with_a_malformed_answer_fails_at_once_and_the_log_names_its_method() {
    for kind in ["nan", "latin-1", "glued", "neither", "string-id"] {
        let harness = Harness::new(&[]).await;
        let alice = harness.in_session("alice").await;
        let message = tool_call_request(17, "test_answer", &json!({ "as": kind }));
        let answer = timeout(SOON, alice.post(message)).await;
        let answer = answer.unwrap_or_else(|_| panic!("{kind}: the request waits")).unwrap();
        let response = answer.response_to(&json!(17)).cloned().unwrap_or_default();
        assert!(response["error"]["message"].is_string(), "{kind}: {}", answer.text());
        assert!(
            is_named_in_a_warning(&harness.broker.log().text(), "tools/call"),
            "{kind}: no warning names the method"
        );
        assert_eq!(login_of(&alice).await, "alice", "{kind}");
    }
}

#[tokio::test]
async fn progress_of_no_request_in_flight_is_dropped() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let with_token = |tool: &str, arguments: Value| json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "mine" } });
    let params = with_token("test_stray_progress", json!({ "token": "unknown" }));
    let (answer, id) = alice.request("tools/call", params).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "{}", answer.text());
    assert!(answer.response_to(&id).is_some());
    // It has the same token, but none of this progress is its own.
    let params = with_token("test_stamp", json!({ "mark": "m", "ms": 1_500 }));
    let (answer, id) = alice.request("tools/call", params).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "{}", answer.text());
    assert!(answer.response_to(&id).is_some());
    // A stream that begins later does not get it either.
    let mut listening = alice.listen(None).await.unwrap();
    call(&alice, "test_announce", Value::Null).await;
    let message = next_message(&mut listening).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn calls_at_once_with_one_progress_token_each_get_their_own_progress() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    for token in [json!(7), json!("7")] {
        let mut calls = JoinSet::new();
        for steps in 1_u64..=10 {
            let client = alice.another_session();
            client.set_session_id(alice.session_id().as_deref());
            let arguments = json!({ "steps": steps, "ms": 50 });
            let params =
                json!({ "name": "test_progress", "arguments": arguments, "_meta": { "progressToken": token } });
            let message = json!({ "jsonrpc": "2.0", "id": steps, "method": "tools/call", "params": params });
            let message = message.to_string();
            calls.spawn(async move { (steps, client.post(message).await.unwrap()) });
        }
        let answers = calls.join_all().await;
        let ids: BTreeSet<u64> = answers.iter().map(|(steps, _)| *steps).collect();
        assert_eq!(ids.len(), 10);
        for (steps, answer) in answers {
            let (response, progress) = answer.messages.split_last().unwrap();
            assert_eq!((&response["id"], response["result"].is_object()), (&json!(steps), true));
            let expected: Vec<Value> = (1..=steps)
                .map(|step| json!({ "progressToken": token, "progress": step, "total": steps }))
                .collect();
            let got: Vec<Value> = progress.iter().map(|message| message["params"].clone()).collect();
            assert_eq!(got, expected);
        }
    }
}
