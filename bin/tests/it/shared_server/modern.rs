//! A shared server that speaks only MCP 2026-07-28, for clients of both eras.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use testkit::{
    Client,
    broker::SharedMcp,
    client::{Answer, EventStream},
};
use tokio::time::timeout;

use super::{HOUR, call, error_in, start_endless_call};
use crate::harness::{Harness, WAIT_LIMIT, login_of, open_session};

/// The line of the log when the server was asked for its era.
const ASKED: &str = "the MCP server was asked for its protocol era";

async fn with_modern_server(strict: bool, settings: &[(&str, &str)]) -> (Harness, SharedMcp) {
    Harness::with_shared_mcp_of_era("modern", strict, settings).await
}

async fn next(stream: &mut EventStream) -> Value {
    loop {
        let event = timeout(WAIT_LIMIT, stream.next()).await.expect("an event").unwrap();
        let data = event.expect("the stream goes on").data;
        if !data.is_empty() {
            return serde_json::from_str(&data).unwrap();
        }
    }
}

/// The headers and the text of a request of the modern era. Its id is `m`.
fn modern_request(client: &Client, method: &str, mut params: Value) -> (HeaderMap, String) {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "stateless", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} },
    });
    let mut headers = client.headers();
    let mut insert = |name, value: &str| headers.insert(name, HeaderValue::from_str(value).unwrap());
    insert("mcp-protocol-version", "2026-07-28");
    insert("mcp-method", method);
    if let Some(name) = params["name"].as_str() {
        insert("mcp-name", name);
    }
    let message = json!({ "jsonrpc": "2.0", "id": "m", "method": method, "params": params });
    (headers, message.to_string())
}

async fn send_modern(client: &Client, method: &str, params: Value) -> Answer {
    let (headers, message) = modern_request(client, method, params);
    client.raw(Method::POST, headers, message).await.unwrap()
}

async fn modern_result(client: &Client, method: &str, params: Value) -> Value {
    let answer = send_modern(client, method, params).await;
    let response = answer
        .response_to(&json!("m"))
        .unwrap_or_else(|| panic!("{}", answer.text()));
    assert!(response["result"].is_object(), "{response}");
    response["result"].clone()
}

#[tokio::test]
async fn legacy_clients_act_as_themselves_and_are_asked() {
    let (harness, server) = with_modern_server(true, &[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    for (login, session) in [("alice", &alice), ("bob", &bob)] {
        assert_eq!(login_of(session).await, login);
        assert!(session.list_tools().await.unwrap().len() >= 141);
    }
    assert_eq!(harness.broker.log().count(ASKED), 1);

    let progress = call(7, "test_progress", &json!({ "steps": 3 }));
    let answer = alice.post(progress).await.unwrap();
    let steps = answer
        .messages
        .iter()
        .filter(|message| message["method"] == "notifications/progress");
    let steps: Vec<&Value> = steps.map(|message| &message["params"]["progress"]).collect();
    assert_eq!(steps, [1, 2, 3]);

    let asking = call(8, "test_ask", &json!({ "id": "q", "question": "sure?" }));
    let mut asking = alice.post_for_stream(asking).await.unwrap();
    let question = next(&mut asking).await;
    assert_eq!(question["params"]["message"], "sure?", "{question}");
    let content = json!({ "action": "accept", "content": { "nonce": "yes" } });
    let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "result": content });
    assert_eq!(alice.post(reply.to_string()).await.unwrap().status, 202);
    let response = next(&mut asking).await;
    assert_eq!(response["id"], 8);
    assert!(response["result"].to_string().contains("yes"), "{response}");
    assert_eq!(server.log().count("session opened"), 0);
}

#[tokio::test]
async fn cancelled_request_is_closed_at_the_server() {
    let (harness, server) = with_modern_server(false, &[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = start_endless_call(&alice, &server).await;
    let cancellation = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    assert_eq!(alice.post(cancellation.to_string()).await.unwrap().status, 202);
    server.log().contains("request abandoned").await;
    error_in(&calls.join_next().await.unwrap().unwrap(), &json!(7));
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn ended_session_closes_its_requests_at_the_server() {
    let (harness, server) = with_modern_server(false, &[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = start_endless_call(&alice, &server).await;
    alice.delete().await.unwrap();
    server.log().contains("request abandoned").await;
    error_in(&calls.join_next().await.unwrap().unwrap(), &json!(7));
}

#[tokio::test]
async fn changes_are_reported_also_after_a_restart_of_the_server() {
    let (harness, mut server) = with_modern_server(false, &[]).await;
    let alice = harness.in_session("alice").await;
    let mut listening = alice.listen(None).await.unwrap();
    for restarted in [false, true] {
        if restarted {
            server.kill().await.unwrap();
            server.start_again().await.unwrap();
        }
        server.log().contains("listening pid=").await;
        alice.call_tool("test_announce", json!({})).await.unwrap();
        let change = next(&mut listening).await;
        assert_eq!(change["method"], "notifications/tools/list_changed");
    }
}

#[tokio::test]
async fn modern_clients_are_served_without_a_session() {
    let (harness, server) = with_modern_server(true, &[]).await;
    let alice = harness.signed_in("alice").await;
    let discovered = modern_result(&alice, "server/discover", json!({})).await;
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
    let list = modern_result(&alice, "tools/list", json!({})).await;
    assert!(list["tools"].as_array().unwrap().len() >= 141);
    let user = json!({ "name": "get_my_user_info", "arguments": {} });
    let user = modern_result(&alice, "tools/call", user).await;
    assert!(user.to_string().contains("alice"), "{user}");

    let mut asking = json!({ "name": "test_ask", "arguments": { "id": "q", "question": "sure?" } });
    let questions = modern_result(&alice, "tools/call", asking.clone()).await;
    assert_eq!(questions["resultType"], "input_required", "{questions}");
    let answer = json!({ "action": "accept", "content": { "nonce": "yes" } });
    let keys = questions["inputRequests"].as_object().unwrap().keys();
    asking["inputResponses"] = keys.map(|key| (key.clone(), answer.clone())).collect();
    asking["requestState"] = questions["requestState"].clone();
    let answered = modern_result(&alice, "tools/call", asking).await;
    assert!(answered.to_string().contains("yes"), "{answered}");

    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let (headers, listen) = modern_request(&alice, "subscriptions/listen", filter);
    let mut listening = alice.raw_for_stream(headers, listen).await.unwrap();
    let acknowledged = next(&mut listening).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged");
    server.log().contains("listening pid=").await;
    let announce = json!({ "name": "test_announce", "arguments": {} });
    modern_result(&alice, "tools/call", announce).await;
    let change = next(&mut listening).await;
    assert_eq!(change["method"], "notifications/tools/list_changed", "{change}");
}

#[tokio::test]
async fn request_that_a_modern_client_closes_is_closed_at_the_server() {
    let (harness, server) = with_modern_server(false, &[]).await;
    let alice = harness.signed_in("alice").await;
    let slow = json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } });
    let (headers, slow) = modern_request(&alice, "tools/call", slow);
    tokio::select! {
        answer = alice.raw(Method::POST, headers, slow) => panic!("{answer:?}"),
        () = server.log().contains("test_sleep") => {}
    }
    server.log().contains("request abandoned").await;
}

#[tokio::test]
async fn token_rejected_by_the_server_is_renewed_once() {
    let (harness, _server) = with_modern_server(true, &[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.forgejo.counters().refreshes;
    harness.forgejo.set_clock_skew(7200);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);
}

#[tokio::test]
async fn renewed_token_is_in_the_next_request() {
    let (harness, server) = with_modern_server(true, &[("session.rotate_interval", "100ms")]).await;
    harness.forgejo.set_lifetimes(Duration::from_secs(6), HOUR);
    let alice = harness.in_session("alice").await;
    let renewed = timeout(WAIT_LIMIT, async {
        while harness.forgejo.counters().refreshes < 2 {
            assert_eq!(login_of(&alice).await, "alice");
        }
    });
    renewed.await.expect("tokens expire and are renewed");
    assert_eq!(login_of(&alice).await, "alice");
    // The question for the era, and the handshake.
    assert_eq!(server.log().count("method=server/discover"), 2);
}

#[tokio::test]
async fn server_that_restarts_with_another_era_is_noticed() {
    let (harness, mut server) = with_modern_server(false, &[]).await;
    let alice = harness.in_session("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    server.kill().await.unwrap();
    server.set_era("legacy");
    server.start_again().await.unwrap();
    // The first request finds out.
    let noticed = timeout(WAIT_LIMIT, async {
        loop {
            let (answer, id) = alice.request("tools/list", json!({})).await.unwrap();
            let response = answer.response_to(&id).unwrap_or(&Value::Null);
            if response["result"].is_object() {
                return;
            }
        }
    });
    noticed.await.expect("the session continues");
    assert_eq!(login_of(&alice).await, "alice");
    assert!(server.log().count("session opened") >= 1);

    server.kill().await.unwrap();
    server.set_era("modern");
    server.start_again().await.unwrap();
    // The handshake that finds out is refused.
    let another = alice.another_session();
    another.initialize().await.unwrap_err();
    open_session(&another).await;
    assert_eq!(login_of(&another).await, "alice");
    assert_eq!(server.log().count("session opened"), 0);
}

#[tokio::test]
async fn configured_era_is_not_asked_for() {
    let (harness, server) = with_modern_server(false, &[("child.era", "modern")]).await;
    let alice = harness.in_session("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.broker.log().count(ASKED), 0);
    assert_eq!(server.log().count("method=server/discover"), 1);
}
