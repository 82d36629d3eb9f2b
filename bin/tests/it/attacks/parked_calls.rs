//! Floods by one grant of 2026-07-28: calls that wait for answers which never come, capabilities
//! that are new in each request, and oversized requests. All are bounded, and others are served.

use serde_json::{Value, json};
use testkit::client::{ModernClient, Reply};
use tokio::task::JoinSet;

use crate::harness::{Harness, conformance_mcp, login_in};
use crate::randomized::env_number;

/// The number of calls that a grant tries to leave open. The long form has 10,000.
const CALLS: &str = "PARKED_CALLS";
const DEFAULT_CALLS: u64 = 200;
/// The number of calls with equal capabilities that may wait.
const MAX_PARKED: usize = 16;
/// The number of sessions of one user, by the setting of these tests.
const MAX_SESSIONS: usize = 6;
const AT_ONCE: usize = 16;

const ASKING: &str = "test_input_required_result_elicitation";

fn with_forms(client: &testkit::Client) -> ModernClient {
    client.modern().with_capabilities(json!({ "elicitation": {} }))
}

fn name(name: &str) -> Value {
    json!({ "user_name": { "action": "accept", "content": { "name": name } } })
}

/// Calls an asking tool, and answers.
async fn assert_served(client: &ModernClient, user: &str) {
    let asked = client.call_tool(ASKING, json!({})).await.unwrap();
    let reply = client.retry(&asked, name(user)).await.unwrap();
    assert_eq!(reply.text(), format!("Hello, {user}!"));
}

#[tokio::test]
async fn calls_that_nobody_answers_are_bounded() {
    let harness = Harness::with_child(conformance_mcp(), &[]).await;
    let alice = harness.signed_in("alice").await;
    let bob = with_forms(&harness.signed_in("bob").await);
    let of_bob = bob.call_tool(ASKING, json!({})).await.unwrap();
    let calls = usize::try_from(env_number(CALLS, DEFAULT_CALLS)).unwrap();
    let mut parked: Vec<Reply> = Vec::new();
    while parked.len() < calls {
        let mut batch = JoinSet::new();
        for _ in 0..AT_ONCE {
            let window = with_forms(&alice);
            batch.spawn(async move { window.call_tool(ASKING, json!({})).await.unwrap() });
        }
        assert_served(&bob, "Bob").await;
        for reply in batch.join_all().await {
            assert_eq!(reply.questions().len(), 1);
            parked.push(reply);
        }
    }
    let client = with_forms(&alice);
    let mut answered = 0;
    for reply in &parked {
        let reply = client.retry(reply, name("Alice")).await.unwrap();
        if reply.status() == 200 {
            assert_eq!(reply.text(), "Hello, Alice!");
            answered += 1;
        } else {
            assert_eq!(
                (reply.error(), reply.data()),
                ((400, -32602), &json!({ "reason": "lost" }))
            );
        }
    }
    assert_eq!(answered, MAX_PARKED);
    assert_served(&client, "Alice").await;
    assert_eq!(bob.retry(&of_bob, name("Bob")).await.unwrap().text(), "Hello, Bob!");
    assert_eq!(harness.wait_for_children(2).await.len(), 2);
}

#[tokio::test]
async fn new_capabilities_in_each_request_are_bounded() {
    let limit = MAX_SESSIONS.to_string();
    let settings = [("session.max_sessions_per_user", limit.as_str())];
    let harness = Harness::new(&settings).await;
    let alice = harness.signed_in("alice").await;
    let bob = harness.signed_in("bob").await.modern();
    let with = |number: usize| {
        let experimental = json!({ "experimental": { "number": { "is": number } } });
        alice.modern().with_capabilities(experimental)
    };
    // One after the other: those that are idle make room.
    for number in 0..MAX_SESSIONS + 2 {
        let reply = with(number).call_tool("get_my_user_info", json!({})).await.unwrap();
        assert_eq!(login_in(reply.text()), "alice");
        let children = harness.broker.children().unwrap().len();
        assert!(children <= MAX_SESSIONS + 1, "{children} children");
    }
    // At once: those that are in use stay, and the quota refuses more.
    let mut requests = JoinSet::new();
    for number in 100..100 + 2 * MAX_SESSIONS {
        let window = with(number);
        requests.spawn(async move {
            window
                .call_tool("test_ask", json!({ "id": 1, "question": "?" }))
                .await
                .unwrap()
        });
    }
    let reply = bob.call_tool("get_my_user_info", json!({})).await.unwrap();
    assert_eq!(login_in(reply.text()), "bob");
    let mut statuses: Vec<u16> = Vec::new();
    for reply in requests.join_all().await {
        if reply.status() == 429 {
            assert!(reply.answer.header("retry-after").is_some());
            reply.error();
        }
        statuses.push(reply.status());
    }
    assert!(
        statuses.iter().all(|status| [200, 400, 429].contains(status)),
        "{statuses:?}"
    );
    let children = harness.broker.children().unwrap().len();
    assert!(children <= MAX_SESSIONS + 1, "{children} children");
    let reply = with(0).call_tool("get_my_user_info", json!({})).await.unwrap();
    assert_eq!(login_in(reply.text()), "alice", "room is made again");
}

#[tokio::test]
async fn oversized_members_are_rejected_and_the_broker_keeps_serving() {
    let harness = Harness::with_child(conformance_mcp(), &[]).await;
    let client = harness.signed_in("alice").await;
    let alice = with_forms(&client);
    let long = "x".repeat(100_000);
    let capabilities = [
        json!({ "experimental": { &long: {} } }),
        json!({ "extensions": { "a/b": { "c": long } } }),
        json!({ "elicitation": {}, "unknown": long }),
        json!([]),
        json!("x"),
        Value::Null,
    ];
    for capabilities in capabilities {
        let client = client.modern().with_capabilities(capabilities);
        let reply = client.request("tools/list", json!({})).await.unwrap();
        assert_eq!(reply.error(), (400, -32602));
    }
    let message = alice.tool_call("test_simple_text", &json!({}));
    for (pointer, value) in [
        (
            "/params/_meta/io.modelcontextprotocol~1clientInfo",
            json!({ "name": long }),
        ),
        ("/params/_meta/io.modelcontextprotocol~1logLevel", json!(long)),
        ("/params/_meta/progressToken", json!(long)),
        ("/params/_meta/progressToken", json!({})),
        ("/params/requestState", json!(long)),
    ] {
        let mut message = message.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        message.pointer_mut(parent).unwrap()[name.replace("~1", "/")] = value;
        let reply = alice.send(message).await.unwrap();
        assert_eq!(reply.error(), (400, -32602), "{pointer}");
    }
    for id in [json!(long), Value::Null, json!({}), json!([1])] {
        let mut message = message.clone();
        message["id"] = id;
        let headers = alice.headers(&message);
        let answer = alice.send_with(headers, message).await.unwrap().answer;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().len() < 1_000, "the id is not repeated");
    }
    // Answers to questions that nobody asks do not add up.
    let mut asked = alice.call_tool(ASKING, json!({})).await.unwrap();
    for round in 0..20 {
        let answers = json!({ format!("unasked-{round}"): { "padding": long } });
        asked = alice.retry(&asked, answers).await.unwrap();
        assert_eq!(asked.questions().len(), 1);
    }
    assert_eq!(alice.retry(&asked, name("Ada")).await.unwrap().text(), "Hello, Ada!");
    // Unknown members of `_meta` are passed on, whatever their size.
    let mut message = message;
    message["params"]["_meta"]["example.org/x"] = json!(long);
    assert_eq!(alice.send(message).await.unwrap().status(), 200);
    assert_served(&alice, "Alice").await;
}
