//! Requests that a server answers without a question: results, errors, progress, log messages, and
//! their cancellation.

use http::{HeaderValue, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{with_every_feature, with_forms};
use crate::{
    conversation::{CHILD_STARTED, IDLE, next_message},
    harness::{Harness, SHORT_IDLE_TIMEOUT, login_in},
};

const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// The methods of earlier revisions that are gone, and one that never was.
const REMOVED: [&str; 8] = [
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
    "tasks/list",
    "tasks/result",
    "no/such",
];

#[tokio::test]
async fn discover_is_answered_from_the_record_without_a_child() {
    let (mut harness, alice) = with_every_feature(&SHORT_IDLE_TIMEOUT).await;
    let discover = async || {
        alice
            .request("server/discover", json!({}))
            .await
            .unwrap()
            .result()
            .clone()
    };
    let first = discover().await;
    assert_eq!(first["resultType"], "complete");
    assert_eq!(first["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!((&first["ttlMs"], &first["cacheScope"]), (&json!(0), &json!("private")));
    assert_eq!(first["_meta"][SERVER_INFO]["name"], "conformance");
    let capabilities = &first["capabilities"];
    assert_eq!(capabilities["tasks"], Value::Null, "{capabilities}");
    assert_eq!(
        capabilities["extensions"],
        json!({ "io.modelcontextprotocol/tasks": {} })
    );
    harness.broker.log().contains(IDLE).await;
    harness.wait_for_children(0).await;
    assert_eq!(discover().await, first);
    harness.restart().await;
    assert_eq!(discover().await, first);
    harness.in_session("bob").await;
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2, "alice's has started once");
}

#[tokio::test]
async fn results_are_complete_and_lists_have_cache_hints() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let reference = json!({ "type": "ref/prompt", "name": "test_prompt_with_arguments" });
    let argument = json!({ "name": "arg1", "value": "par" });
    for (method, params, member, cacheable) in [
        ("tools/list", json!({}), "tools", true),
        ("prompts/list", json!({}), "prompts", true),
        ("resources/list", json!({}), "resources", true),
        ("resources/templates/list", json!({}), "resourceTemplates", true),
        (
            "resources/read",
            json!({ "uri": "test://static-text" }),
            "contents",
            true,
        ),
        (
            "prompts/get",
            json!({ "name": "test_simple_prompt" }),
            "messages",
            false,
        ),
        ("tools/call", json!({ "name": "test_simple_text" }), "content", false),
        (
            "completion/complete",
            json!({ "ref": reference, "argument": argument }),
            "completion",
            false,
        ),
    ] {
        let reply = alice.request(method, params).await.unwrap();
        let result = reply.result();
        assert_eq!(result["resultType"], "complete", "{method}");
        assert!(!result[member].is_null(), "{method}: {result}");
        assert_eq!(result["_meta"][SERVER_INFO]["name"], "conformance", "{method}");
        let hints = (result.get("ttlMs"), result.get("cacheScope"));
        let (ttl, scope) = (json!(0), json!("private"));
        assert_eq!(
            hints,
            if cacheable {
                (Some(&ttl), Some(&scope))
            } else {
                (None, None)
            },
            "{method}"
        );
        assert!(reply.answer.header("mcp-session-id").is_none(), "{method}");
        if let Some(tools) = result["tools"].as_array() {
            assert!(
                tools.iter().all(|tool| tool.get("execution").is_none()),
                "tasks of 2025-11-25 are unknown"
            );
        }
    }
}

#[tokio::test]
async fn progress_and_log_messages_are_on_the_stream_of_their_request() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let alice = alice.with_progress_token("p");
    let reply = alice.call_tool("test_tool_with_progress", json!({})).await.unwrap();
    assert_eq!(reply.text(), "Tool with progress executed successfully");
    let progress = reply.notifications();
    let params: Vec<_> = progress
        .iter()
        .map(|message| {
            assert_eq!(message["method"], "notifications/progress");
            (&message["params"]["progressToken"], &message["params"]["progress"])
        })
        .collect();
    let token = json!("p");
    assert_eq!(
        params,
        [(&token, &json!(0)), (&token, &json!(50)), (&token, &json!(100))]
    );

    let silent = alice.call_tool("test_tool_with_logging", json!({})).await.unwrap();
    assert_eq!(silent.notifications(), Vec::<&Value>::new(), "no level was asked for");
    let alice = alice.with_log_level("info");
    let reply = alice.call_tool("test_tool_with_logging", json!({})).await.unwrap();
    let messages = reply.notifications();
    assert_eq!(messages.len(), 3);
    assert!(
        messages
            .iter()
            .all(|message| message["method"] == "notifications/message")
    );
    let alice = alice.with_log_level("error");
    let reply = alice.call_tool("test_tool_with_logging", json!({})).await.unwrap();
    assert_eq!(reply.notifications(), Vec::<&Value>::new(), "they are less severe");
    let alice = alice.with_log_level("loud");
    assert_eq!(
        alice.request("tools/list", json!({})).await.unwrap().error(),
        (400, -32602)
    );
}

#[tokio::test]
async fn errors_have_the_codes_and_the_status_of_the_revision() {
    let (harness, alice) = with_every_feature(&[]).await;
    for method in REMOVED {
        assert_eq!(
            alice.request(method, json!({})).await.unwrap().error(),
            (404, -32601),
            "{method}"
        );
    }
    assert_eq!(
        harness.broker.log().count(CHILD_STARTED),
        0,
        "none of them needs a child"
    );
    let uri = "test://missing";
    let missing = alice.request("resources/read", json!({ "uri": uri })).await.unwrap();
    assert_eq!(missing.error(), (200, -32602));
    assert_eq!(missing.data(), &json!({ "uri": uri }));
    for (method, params) in [
        ("tools/call", json!({ "name": "no_such_tool" })),
        ("prompts/get", json!({ "name": "no_such_prompt" })),
    ] {
        assert_eq!(
            alice.request(method, params).await.unwrap().error(),
            (200, -32602),
            "{method}"
        );
    }
    let failed = alice.call_tool("test_error_handling", json!({})).await.unwrap();
    assert_eq!((failed.status(), &failed.result()["isError"]), (200, &json!(true)));
    let alice = alice.with_capabilities(json!({}));
    let asks = alice.call_tool("test_missing_capability", json!({})).await.unwrap();
    assert_eq!(asks.error(), (400, -32021));
    assert_eq!(asks.data(), &json!({ "requiredCapabilities": { "sampling": {} } }));
}

#[tokio::test]
async fn method_of_a_capability_that_is_not_announced_is_404() {
    let (_harness, alice) = with_forms(&[]).await;
    let prompts = alice.request("prompts/list", json!({})).await.unwrap();
    assert_eq!(prompts.error(), (404, -32601));
}

#[tokio::test]
async fn only_post_is_served_and_session_ids_have_no_meaning() {
    let harness = Harness::new(&[]).await;
    let keyed = harness.in_session("alice").await;
    let alice = keyed.modern();
    let message = alice.tool_call("get_my_user_info", &json!({}));
    let id = keyed.session_id().unwrap();
    for id in [id.as_str(), "stale", "", "\u{e9}"] {
        let mut headers = alice.headers(&message);
        headers.append("mcp-session-id", HeaderValue::from_bytes(id.as_bytes()).unwrap());
        let reply = alice.send_with(headers.clone(), message.clone()).await.unwrap();
        assert_eq!(login_in(reply.text()), "alice");
        assert!(reply.answer.header("mcp-session-id").is_none());
        for method in [Method::GET, Method::DELETE] {
            let answer = keyed.raw(method.clone(), headers.clone(), "").await.unwrap();
            assert_eq!(answer.status, 405, "{method}");
            assert_eq!(answer.header("allow"), Some("POST"), "{method}");
        }
    }
    assert_eq!(crate::harness::login_of(&keyed).await, "alice", "its session goes on");
}

#[tokio::test]
async fn closing_the_stream_cancels_the_call() {
    let (harness, alice) = with_forms(&[]).await;
    let cancelled = "got notifications/cancelled";
    // Before there is a response.
    let mut calls = JoinSet::new();
    let message = alice.tool_call("test_sleep", &json!({ "ms": 600_000 }));
    let (headers, client) = (alice.headers(&message), alice.client().another_session());
    calls.spawn(async move { client.raw(Method::POST, headers, message.to_string()).await });
    harness.broker.log().contains("tool=test_sleep").await;
    calls.abort_all();
    harness.broker.log().contains(cancelled).await;
    // In the middle of a response.
    let alice = alice.with_progress_token(7);
    let message = alice.tool_call("test_progress", &json!({ "steps": 1_000_000, "ms": 20 }));
    let mut stream = alice.stream(&message).await.unwrap();
    assert_eq!(next_message(&mut stream).await["params"]["progressToken"], 7);
    drop(stream);
    harness.broker.log().contains_times(cancelled, 2).await;
    let echo = alice.call_tool("test_echo", json!({ "n": 1 })).await.unwrap();
    assert_eq!(echo.json(), json!({ "n": 1 }));
}
