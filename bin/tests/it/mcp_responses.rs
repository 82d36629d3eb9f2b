//! Responses of `/mcp` over real HTTP: status, headers, and a body with the id of the request.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use testkit::{
    Client,
    broker::ChildCommand,
    forgejo::{Fault, Times},
};

use crate::harness::{
    FORGEJO_TOKEN_ENDPOINT, Harness, login_of,
    messages::{assert_error, initialize_request, initialize_until, tool_call_request, tools_list_request},
    open_session,
    raw_http::RawConnection,
};

/// The advertised lifetime of a Forgejo token in tests that wait for its expiry. It stays valid
/// longer, so that a slow sign-in succeeds.
const SHORT_LIFETIME: Duration = Duration::from_secs(3);

/// An MCP server that is a system program.
fn child(command: &str, args: &[&str]) -> ChildCommand {
    ChildCommand {
        command: command.into(),
        args: args.iter().map(|&arg| arg.into()).collect(),
        env: vec![],
    }
}

#[tokio::test]
async fn unreachable_forgejo_is_503_once_the_token_expires_until_it_recovers() {
    let harness = Harness::new(&[]).await;
    harness.forgejo.set_advertised_lifetime(SHORT_LIFETIME);
    let alice = harness.signed_in("alice").await;
    harness.forgejo.inject(
        FORGEJO_TOKEN_ENDPOINT,
        Fault::Status(StatusCode::BAD_GATEWAY),
        Times::UntilCleared,
    );
    let answer = initialize_until(&alice, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_error(&answer, 503, "again");
    assert!(answer.header("retry-after").is_some());
    harness.forgejo.clear_faults();
    // Starts that failed meanwhile may delay the next one.
    initialize_until(&alice, StatusCode::OK).await;
    open_session(&alice).await;
}

#[tokio::test]
async fn user_who_revoked_at_forgejo_gets_401_at_once() {
    let harness = Harness::new(&[]).await;
    // The broker considers the token valid for another hour; only the child learns from Forgejo
    // that it is not.
    let alice = harness.signed_in("alice").await;
    let bob = harness.in_session("bob").await;
    harness.forgejo.revoke("alice");
    let answer = alice.post(initialize_request("first")).await.unwrap();
    assert_error(&answer, 401, "first");
    assert!(answer.header("www-authenticate").unwrap().contains("resource_metadata"));
    // Her grants have ended: from now on the bearer check rejects her token.
    let answer = alice.post(initialize_request("again")).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    // One failed refresh revealed the revocation. Other users are unaffected.
    let counters = harness.forgejo.counters();
    assert_eq!((counters.refreshes, counters.refresh_refusals), (0, 1));
    assert_eq!(login_of(&bob).await, "bob");
}

#[tokio::test]
async fn dormant_session_of_a_user_who_revoked_at_forgejo_gets_401() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    harness.forgejo.revoke("alice");
    for child in harness.broker.children().unwrap() {
        child.kill().unwrap();
        child.exited().await.unwrap();
    }
    let answer = alice.post(tools_list_request("woken")).await.unwrap();
    assert_error(&answer, 401, "woken");
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
}

#[tokio::test]
async fn failing_server_starts_refresh_the_forgejo_token_only_once() {
    let failing = child("/bin/sh", &["-c", "exit 3"]);
    let harness = Harness::with_child(failing, &[]).await;
    let alice = harness.signed_in("alice").await;
    // The first fails, with its retry; then the starts of this user are delayed.
    for (n, status) in [(0, 502), (1, 502), (2, 503)] {
        let answer = alice.post(initialize_request(n)).await.unwrap();
        assert_error(&answer, status, n);
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() > 0);
    }
    assert_eq!(
        harness.forgejo.counters().refreshes,
        1,
        "failed starts share one refresh"
    );
    alice.refresh().await.unwrap();
}

#[tokio::test]
async fn server_that_does_not_start_is_502_and_the_reason_is_only_logged() {
    let failing = child("/bin/sh", &["-c", "echo because >&2; exit 3"]);
    let missing = child("/nowhere/at-all", &[]);
    for (child, reason) in [(failing, "because"), (missing, "not found")] {
        let harness = Harness::with_child(child, &[]).await;
        let alice = harness.signed_in("alice").await;
        let answer = alice.post(initialize_request("first")).await.unwrap();
        assert_error(&answer, 502, "first");
        assert!(!answer.text().contains(reason), "{}", answer.text());
        harness.broker.log().contains(reason).await;
        assert!(answer.header("mcp-session-id").is_none());
    }
}

#[tokio::test]
async fn silent_server_is_502_after_the_start_timeout() {
    let silent = child("/bin/sleep", &["600"]);
    let harness = Harness::with_child(silent, &[("child.start_timeout", "300ms")]).await;
    let alice = harness.signed_in("alice").await;
    assert_error(&alice.post(initialize_request(1)).await.unwrap(), 502, 1);
    // The child is stopped.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
}

#[tokio::test]
async fn malformed_messages_are_400() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let without_session = alice.another_session();
    for client in [&alice, &without_session] {
        assert_eq!(
            assert_error(&client.post("{").await.unwrap(), 400, Value::Null)["code"],
            -32700
        );
        assert_eq!(
            assert_error(&client.post(r#"{"id":1}"#).await.unwrap(), 400, 1)["code"],
            -32600
        );
    }
}

#[tokio::test]
async fn each_unacceptable_header_has_its_own_status() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let with = |name: header::HeaderName, value: &'static str| {
        let mut headers = alice.headers();
        headers.insert(name, HeaderValue::from_static(value));
        headers
    };
    let version = header::HeaderName::from_static("mcp-protocol-version");
    for (headers, status) in [
        (with(header::ACCEPT, "text/html"), 406),
        (with(header::CONTENT_TYPE, "text/plain"), 415),
        (with(version, "1999-01-01"), 400),
        (with(header::ORIGIN, "https://evil.example"), 403),
        (with(header::HOST, "evil.example"), 403),
    ] {
        let answer = alice.raw(Method::POST, headers, tools_list_request(1)).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = alice
        .raw(Method::PUT, alice.headers(), tools_list_request(1))
        .await
        .unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("POST"));
    assert_eq!(
        status_line_for_length(&harness, &alice, 4 * 1024 * 1024 + 1).await,
        "HTTP/1.1 413 Payload Too Large"
    );
    assert_eq!(login_of(&alice).await, "alice");
}

/// The status line for a body of this length. The body is never sent: a rejection does not wait for
/// it.
async fn status_line_for_length(harness: &Harness, client: &Client, length: usize) -> String {
    let mut connection = RawConnection::open(harness).await;
    connection.send_head(&client.access_token().unwrap(), "", length).await;
    connection.next_line().await
}

#[tokio::test]
async fn id_in_flight_is_409_and_ids_are_returned_unchanged() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let slow = alice.post(tool_call_request("same", "test_sleep", &json!({ "ms": 2_000 })));
    let second = async {
        harness.broker.log().contains("test_sleep").await;
        alice.post(tools_list_request("same")).await
    };
    let (slow, second) = tokio::join!(slow, second);
    assert_error(&second.unwrap(), 409, "same");
    let slow = slow.unwrap();
    assert!(slow.response_to(&json!("same")).unwrap()["result"].is_object());
    // After one second without a response the broker starts a stream.
    assert!(slow.is_stream());

    for id in [
        json!(0),
        json!(-1),
        json!(9_007_199_254_740_993_u64),
        json!("0"),
        json!("ü\"\\"),
    ] {
        let answer = alice.post(tools_list_request(id.clone())).await.unwrap();
        assert!(answer.response_to(&id).is_some(), "{id}: {}", answer.text());
    }
}

#[tokio::test]
async fn progress_precedes_the_response_on_the_stream_of_its_request() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let params = json!({ "name": "test_progress", "arguments": { "steps": 3 }, "_meta": { "progressToken": "p" } });
    let (answer, id) = alice.request("tools/call", params).await.unwrap();
    assert!(answer.is_stream());
    let methods: Vec<Option<&str>> = answer
        .messages
        .iter()
        .map(|message| message["method"].as_str())
        .collect();
    let progress = Some("notifications/progress");
    assert_eq!(methods, [progress, progress, progress, None]);
    assert!(
        answer.messages[..3]
            .iter()
            .all(|message| message["params"]["progressToken"] == "p")
    );
    assert_eq!(answer.messages[3]["id"], id);
}

#[tokio::test]
async fn long_tools_list_is_complete() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let (answer, id) = alice.request("tools/list", json!({})).await.unwrap();
    assert!(answer.body.len() > 90_000);
    assert!(
        answer.response_to(&id).unwrap()["result"]["tools"]
            .as_array()
            .unwrap()
            .len()
            >= 141
    );
}

#[tokio::test]
async fn call_that_is_not_answered_within_request_timeout_gets_an_error() {
    let harness = Harness::new(&[("session.request_timeout", "3s")]).await;
    let alice = harness.in_session("alice").await;
    let call = json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } });
    let (answer, id) = alice.request("tools/call", call).await.unwrap();
    let response = answer.response_to(&id).unwrap();
    assert!(response["error"]["message"].is_string(), "{response}");
    // The session goes on.
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn health_reports_version_and_revision() {
    let harness = Harness::new(&[]).await;
    let health = Client::new(format!("{}/healthz", harness.broker.url()).parse().unwrap());
    let answer = health.raw(Method::GET, Default::default(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["revision"], forgejo_mcp_broker::version::REVISION);
    assert_eq!(body["status"], "ok", "{body}");
    assert_eq!(
        answer.headers.get(header::CONTENT_TYPE),
        Some(&HeaderValue::from_static("application/json"))
    );
}
