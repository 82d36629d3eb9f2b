//! Clients of 2025-11-25 whose server speaks only 2026-07-28, and the question for the era.

use serde_json::{Value, json};
use testkit::Client;

use super::{
    call,
    calls::{OpenCall, accept, cancel, nonces},
    kill_child, next_message, rotate, text_of,
};
use crate::harness::{Harness, fake_forgejo_mcp, login_of, open_session};

const RESOURCE: &str = "test://resource";
/// The line of the log when a process was asked for its era.
const ASKED: &str = "the program was asked for its protocol era";

/// A harness with children of one era.
async fn harness(child: &str, configured: &str) -> Harness {
    let child = fake_forgejo_mcp().with_era(child);
    Harness::with_child(child, &[("child.era", configured)]).await
}

async fn modern() -> Harness {
    harness("modern", "modern").await
}

/// The result of a request.
async fn result(client: &Client, method: &str, params: Value) -> Value {
    let (answer, id) = client.request(method, params).await.unwrap();
    let response = answer.response_to(&id).unwrap_or_else(|| panic!("{}", answer.text()));
    assert!(response["result"].is_object(), "{response}");
    response["result"].clone()
}

#[tokio::test]
async fn handshake_list_and_call_are_translated() {
    let harness = modern().await;
    let alice = harness.signed_in("alice").await;
    let initialized = alice.initialize().await.unwrap();
    assert_eq!(initialized["protocolVersion"], "2025-11-25", "{initialized}");
    assert_eq!(initialized["serverInfo"]["name"], "Forgejo MCP Server", "{initialized}");
    alice.initialized().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    let list = result(&alice, "tools/list", json!({})).await;
    assert!(list["tools"].as_array().unwrap().len() > 100);
    let members: Vec<_> = list.as_object().unwrap().keys().collect();
    assert_eq!(members, ["tools"]);
    assert_eq!(result(&alice, "ping", json!({})).await, json!({}));
}

#[tokio::test]
async fn questions_reach_the_client_as_requests() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let mut first = OpenCall::ask(&alice, "a", "q", "delete repo A?").await;
    let mut second = OpenCall::start(&alice, "b", "test_ask", json!({ "question": "sure?", "twice": true })).await;
    let of_first = first.question().await;
    let (one, two) = (second.question().await, second.question().await);
    assert_eq!((of_first.text.as_str(), one.text.as_str()), ("delete repo A?", "sure?"));
    for (question, nonce) in [(&two, "two"), (&of_first, "yes"), (&one, "one")] {
        accept(&alice, question, nonce).await;
    }
    assert_eq!(nonces(&first.response().await), ["yes"]);
    assert_eq!(nonces(&second.response().await), ["one", "two"]);
}

#[tokio::test]
async fn questions_of_a_replaced_child_are_answered_by_their_answers() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let old = harness.only_child();
    let mut asking = OpenCall::ask(&alice, "a", "q", "sure?").await;
    let question = asking.question().await;
    rotate(&harness, "alice").await;
    accept(&alice, &question, "yes").await;
    let response = asking.response().await;
    assert_eq!(
        (nonces(&response), &text_of(&response)["pid"]),
        (vec!["yes".into()], &json!(old.pid))
    );
    assert_ne!(call(&alice, "test_read", json!({})).await["pid"], old.pid);
}

#[tokio::test]
async fn progress_keeps_the_token_of_the_client() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let params = json!({
        "name": "test_progress", "arguments": { "steps": 2, "ms": 1 }, "_meta": { "progressToken": "mine" },
    });
    let message = json!({ "jsonrpc": "2.0", "id": "p", "method": "tools/call", "params": params });
    let mut running = OpenCall::post(&alice, &json!("p"), message.to_string()).await;
    for step in 1..=2 {
        let progress = running.next().await;
        let params = &progress["params"];
        assert_eq!(
            (&params["progressToken"], &params["progress"]),
            (&json!("mine"), &json!(step))
        );
    }
    assert_eq!(text_of(&running.response().await), "done");
}

#[tokio::test]
async fn log_messages_come_from_the_level_on_that_the_client_has_set() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let log = json!({ "mark": "a", "announce": true });
    let params = json!({ "name": "test_stamp", "arguments": log });
    let (answer, _) = alice.request("tools/call", params).await.unwrap();
    assert!(!answer.is_stream(), "no message comes before the answer");
    result(&alice, "logging/setLevel", json!({ "level": "info" })).await;
    for round in ["b", "c"] {
        let mut logging = OpenCall::start(&alice, round, "test_stamp", log.clone()).await;
        assert_eq!(logging.next().await["method"], "notifications/message");
        logging.response().await;
        // The next child knows the level, too.
        kill_child(&harness).await;
    }
}

#[tokio::test]
async fn changes_are_reported_by_each_child() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let mut listening = alice.listen(None).await.unwrap();
    result(&alice, "resources/subscribe", json!({ "uri": RESOURCE })).await;
    for _child in 0..2 {
        let listening_now = format!("listening pid={} ", harness.only_child().pid);
        harness.broker.log().contains(&listening_now).await;
        loop {
            // The requests of the link are read in order, but it may still be opening the next one.
            let update = call(&alice, "test_update", json!({ "uri": RESOURCE })).await;
            if update["subscribed"] == true {
                break;
            }
        }
        let update = next_message(&mut listening).await;
        assert_eq!(update["method"], "notifications/resources/updated");
        assert_eq!(update["params"], json!({ "uri": RESOURCE }));
        call(&alice, "test_announce", json!({})).await;
        let changed = next_message(&mut listening).await;
        assert_eq!(changed["method"], "notifications/tools/list_changed");
        kill_child(&harness).await;
        call(&alice, "test_read", json!({})).await;
    }
    result(&alice, "resources/unsubscribe", json!({ "uri": RESOURCE })).await;
}

#[tokio::test]
async fn cancellation_reaches_the_child() {
    let harness = modern().await;
    let alice = harness.in_session("alice").await;
    let slow = OpenCall::start(&alice, "slow", "test_sleep", json!({ "ms": 600_000 })).await;
    cancel(&alice, slow.id()).await;
    let cancelled = format!("got notifications/cancelled pid={}", harness.only_child().pid);
    harness.broker.log().contains(&cancelled).await;
}

#[tokio::test]
async fn era_of_the_program_is_asked_once() {
    for child in ["legacy", "exits", "modern"] {
        let harness = harness(child, "auto").await;
        let alice = harness.in_session("alice").await;
        let other = alice.another_session();
        open_session(&other).await;
        let bob = harness.in_session("bob").await;
        assert_eq!(login_of(&alice).await, "alice");
        assert_eq!(login_of(&other).await, "alice");
        assert_eq!(login_of(&bob).await, "bob");
        rotate(&harness, "bob").await;
        assert_eq!(login_of(&bob).await, "bob");
        assert_eq!(harness.broker.log().count(ASKED), 1, "{child}");
    }
}

#[tokio::test]
async fn server_of_another_era_than_configured_fails_its_handshake() {
    let harness = harness("legacy", "modern").await;
    let alice = harness.signed_in("alice").await;
    let refused = alice.initialize().await.unwrap_err().to_string();
    assert!(refused.contains("-32601") || refused.contains("not found"), "{refused}");
}
