//! The answers at `/mcp`, each over real HTTP: status, headers, and a body that carries the id of the request.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use testkit::{
    Client,
    broker::ChildCommand,
    client::Answer,
    forgejo::{Fault, Times},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    harness::{Harness, login_of, open},
    sessions::LIMIT,
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) fn tools_list(id: impl Into<Value>) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "tools/list" }).to_string()
}

pub(crate) fn initialize(id: impl Into<Value>) -> String {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "initialize", "params": params }).to_string()
}

/// Checks the status, and that the body is a JSON-RPC error for this id.
#[track_caller]
pub(crate) fn is_error(answer: &Answer, status: u16, id: impl Into<Value>) -> Value {
    let body = answer.json();
    assert_eq!(answer.status.as_u16(), status, "{body}");
    assert_eq!(body["jsonrpc"], "2.0", "{body}");
    assert_eq!(body["id"], id.into(), "{body}");
    assert!(
        body["error"]["code"].is_i64() && body["error"]["message"].is_string(),
        "{body}"
    );
    body["error"].clone()
}

#[tokio::test]
async fn forgejo_out_of_reach_is_503_once_the_token_has_run_out_and_comes_back() {
    let harness = Harness::new(&[]).await;
    harness.forgejo.set_advertised_lifetime(SHORT);
    let alice = harness.signed_in("alice").await;
    harness.forgejo.inject(
        "/login/oauth/access_token",
        Fault::Status(StatusCode::BAD_GATEWAY),
        Times::UntilCleared,
    );
    let answer = initialize_until(&alice, StatusCode::SERVICE_UNAVAILABLE).await;
    is_error(&answer, 503, "again");
    assert!(answer.header("retry-after").is_some());
    harness.forgejo.clear_faults();
    open(&alice).await;
}

#[tokio::test]
async fn a_user_who_revoked_at_forgejo_is_401_at_once() {
    let harness = Harness::new(&[]).await;
    // The token looks good for another hour; only its child is told by Forgejo that it is not.
    let alice = harness.signed_in("alice").await;
    let bob = harness.in_session("bob").await;
    harness.forgejo.revoke("alice");
    let answer = alice.post(initialize("first")).await.unwrap();
    is_error(&answer, 401, "first");
    assert!(answer.header("www-authenticate").unwrap().contains("resource_metadata"));
    // Her grants have ended with it: from now on the guard says so.
    let answer = alice.post(initialize("again")).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    // One renewal has told, and others notice nothing.
    let counters = harness.forgejo.counters();
    assert_eq!((counters.refreshes, counters.refresh_refusals), (0, 1));
    assert_eq!(login_of(&bob).await, "bob");
}

#[tokio::test]
async fn a_session_whose_user_revoked_at_forgejo_is_401_when_it_wakes() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    harness.forgejo.revoke("alice");
    for child in harness.broker.children().unwrap() {
        child.kill().unwrap();
        child.exited().await.unwrap();
    }
    let answer = alice.post(tools_list("woken")).await.unwrap();
    is_error(&answer, 401, "woken");
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
}

#[tokio::test]
async fn a_server_that_cannot_start_does_not_wear_out_the_sign_in() {
    let failing = ChildCommand {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), "exit 3".into()],
        env: vec![],
    };
    let harness = Harness::with_child(failing, &[]).await;
    let alice = harness.signed_in("alice").await;
    for n in 0..10 {
        is_error(&alice.post(initialize(n)).await.unwrap(), 502, n);
    }
    assert_eq!(
        harness.forgejo.counters().refreshes,
        1,
        "one in a while, however often it is tried"
    );
    alice.refresh().await.unwrap();
}

/// How long a Forgejo token is said to live in tests that wait for its end. It is good for longer: a sign-in may take its time.
const SHORT: Duration = Duration::from_secs(3);

/// Opens sessions, and ends them again, until one is answered with this status.
pub(crate) async fn initialize_until(client: &Client, wanted: StatusCode) -> Answer {
    let trying = async {
        loop {
            let answer = client.post(initialize("again")).await.unwrap();
            if answer.status == wanted {
                return answer;
            }
            if let Some(id) = answer.header("mcp-session-id") {
                client.set_session_id(Some(id));
                client.delete().await.unwrap();
            }
        }
    };
    timeout(20 * SHORT, trying)
        .await
        .unwrap_or_else(|_| panic!("{wanted} never came"))
}

#[tokio::test]
async fn a_server_that_does_not_start_is_502_and_the_reason_stays_in_the_log() {
    let failing = ChildCommand {
        command: "/bin/sh".into(),
        args: vec!["-c".into(), "echo because >&2; exit 3".into()],
        env: vec![],
    };
    let missing = ChildCommand {
        command: "/nowhere/at-all".into(),
        args: vec![],
        env: vec![],
    };
    for (child, reason) in [(failing, "because"), (missing, "not found")] {
        let harness = Harness::with_child(child, &[]).await;
        let alice = harness.signed_in("alice").await;
        let answer = alice.post(initialize("first")).await.unwrap();
        is_error(&answer, 502, "first");
        assert!(!answer.text().contains(reason), "{}", answer.text());
        harness.broker.log().contains(reason).await;
        assert!(answer.header("mcp-session-id").is_none());
    }
}

#[tokio::test]
async fn a_server_that_never_talks_is_502_after_the_start_timeout() {
    let silent = ChildCommand {
        command: "/bin/sleep".into(),
        args: vec!["600".into()],
        env: vec![],
    };
    let harness = Harness::with_child(silent, &[("child.start_timeout", "300ms")]).await;
    let alice = harness.signed_in("alice").await;
    is_error(&alice.post(initialize(1)).await.unwrap(), 502, 1);
    // And nothing of it is left.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
}

#[tokio::test]
async fn messages_that_are_none_are_400() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let outside = alice.another_session();
    for client in [&alice, &outside] {
        assert_eq!(
            is_error(&client.post("{").await.unwrap(), 400, Value::Null)["code"],
            -32700
        );
        assert_eq!(
            is_error(&client.post(r#"{"id":1}"#).await.unwrap(), 400, 1)["code"],
            -32600
        );
    }
}

#[tokio::test]
async fn headers_that_do_not_fit_are_refused_each_with_its_status() {
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
        let answer = alice.raw(Method::POST, headers, tools_list(1)).await.unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let answer = alice.raw(Method::PUT, alice.headers(), tools_list(1)).await.unwrap();
    assert_eq!(answer.status, 405);
    assert!(answer.header("allow").unwrap().contains("POST"));
    assert_eq!(
        announce(&harness, &alice, 4 * 1024 * 1024 + 1).await,
        "HTTP/1.1 413 Payload Too Large"
    );
    assert_eq!(login_of(&alice).await, "alice");
}

/// The status line for a body of this length, which is announced and never sent: no refusal waits for it.
async fn announce(harness: &Harness, client: &Client, length: usize) -> String {
    let address = harness.broker.url().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let token = client.access_token().unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let line = timeout(LIMIT, lines.next_line()).await.expect("an answer comes");
    line.unwrap().unwrap()
}

#[tokio::test]
async fn an_id_that_is_in_flight_is_409_and_ids_come_back_as_they_were() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let call = |id: Value, name: &str, arguments: Value| {
        let params = json!({ "name": name, "arguments": arguments });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
    };
    let slow = alice.post(call(json!("same"), "test_sleep", json!({ "ms": 2_000 })));
    let second = async {
        harness.broker.log().contains("test_sleep").await;
        alice.post(tools_list("same")).await
    };
    let (slow, second) = tokio::join!(slow, second);
    is_error(&second.unwrap(), 409, "same");
    let slow = slow.unwrap();
    assert!(slow.response_to(&json!("same")).unwrap()["result"].is_object());
    // It took longer than a second: by then the answer had become a stream.
    assert!(slow.is_stream());

    for id in [
        json!(0),
        json!(-1),
        json!(9_007_199_254_740_993_u64),
        json!("0"),
        json!("ü\"\\"),
    ] {
        let answer = alice.post(tools_list(id.clone())).await.unwrap();
        assert!(answer.response_to(&id).is_some(), "{id}: {}", answer.text());
    }
}

#[tokio::test]
async fn progress_comes_on_the_stream_of_its_own_request_before_the_answer() {
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
async fn the_whole_tools_list_comes_through() {
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
async fn health_says_what_runs_and_whether_the_store_works() {
    let harness = Harness::new(&[]).await;
    let health = Client::new(format!("{}/healthz", harness.broker.url()).parse().unwrap());
    let answer = health.raw(Method::GET, Default::default(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["revision"], forgejo_mcp_broker::version::REVISION);
    assert_eq!(body["probes"]["store"], "ok", "{body}");
    assert_eq!(answer.headers.get(header::CONTENT_TYPE), Some(&JSON));
}
