//! The answers at `/mcp`, each over real HTTP: status, headers, and a body that carries the id of the request.

use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use testkit::{
    Browser, Client,
    broker::ChildCommand,
    client::Answer,
    forgejo::{Fault, Times},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::bed::{Bed, login_of, open, password};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn tools_list(id: impl Into<Value>) -> String {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "tools/list" }).to_string()
}

fn initialize(id: impl Into<Value>) -> String {
    let params = json!({
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    });
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": "initialize", "params": params }).to_string()
}

/// Checks the status, and that the body is a JSON-RPC error for this id.
#[track_caller]
fn is_error(answer: &Answer, status: u16, id: impl Into<Value>) -> Value {
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
async fn no_bearer_or_a_bad_one_is_401_and_says_where_to_go() {
    let bed = Bed::new(&[]).await;
    let client = bed.client();
    for token in [None, Some("fmb_at_nonsense")] {
        client.set_access_token(token);
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let answer = client.raw(method, client.headers(), initialize(1)).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            let challenge = answer.header("www-authenticate").unwrap();
            let metadata = format!("{}/.well-known/oauth-protected-resource", bed.broker.url());
            assert!(
                challenge.starts_with("Bearer ") && challenge.contains(&metadata),
                "{challenge}"
            );
            assert_eq!(
                challenge.contains("error=\"invalid_token\""),
                token.is_some(),
                "{challenge}"
            );
        }
    }
    assert!(bed.broker.children().unwrap().is_empty());
}

#[tokio::test]
async fn a_session_of_another_grant_is_403() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
    let bob = bed.signed_in("bob").await;
    // Her second client is another grant, though the same user.
    let hers = bed.client().with_redirect_uri("http://127.0.0.1/another-client");
    hers.sign_in(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    for intruder in [&bob, &hers] {
        intruder.set_session_id(alice.session_id().as_deref());
        is_error(&intruder.post(tools_list("x")).await.unwrap(), 403, "x");
        assert_eq!(
            intruder
                .raw(Method::DELETE, intruder.headers(), "")
                .await
                .unwrap()
                .status,
            403
        );
        assert_eq!(
            intruder.raw(Method::GET, intruder.headers(), "").await.unwrap().status,
            403
        );
    }
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn a_refreshed_bearer_of_the_same_grant_is_the_same_caller() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
    let before = alice.access_token();
    alice.refresh().await.unwrap();
    assert_ne!(alice.access_token(), before);
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn an_ended_session_is_404_and_an_unknown_one_410() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
    let id = alice.session_id().unwrap();
    assert!(
        id.len() == 48 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{id}"
    );
    alice.delete().await.unwrap();
    alice.set_session_id(Some(&id));
    is_error(&alice.post(tools_list(7)).await.unwrap(), 404, 7);
    for unknown in ["0".repeat(48).as_str(), "nonsense"] {
        alice.set_session_id(Some(unknown));
        is_error(&alice.post(tools_list("seven")).await.unwrap(), 410, "seven");
    }
}

#[tokio::test]
async fn one_setting_makes_unknown_sessions_404() {
    let bed = Bed::new(&[("session.unknown_status", "404")]).await;
    let alice = bed.signed_in("alice").await;
    alice.set_session_id(Some(&"0".repeat(48)));
    is_error(&alice.post(tools_list(1)).await.unwrap(), 404, 1);
}

#[tokio::test]
async fn a_user_at_the_cap_is_429_and_told_which_sessions_hold_it() {
    let bed = Bed::new(&[("session.max_sessions_per_user", "2")]).await;
    let alice = bed.in_session("alice").await;
    let second = alice.another_session();
    open(&second).await;
    let third = alice.another_session();
    let answer = third.post(initialize(3)).await.unwrap();
    let error = is_error(&answer, 429, 3);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(error["data"]["sessions"].as_array().unwrap().len(), 2, "{error}");
    let told = error.to_string();
    assert!(!told.contains(&alice.session_id().unwrap()), "an id is a secret");
    // Nobody else is held up, and a session that ends makes room.
    bed.in_session("bob").await;
    second.delete().await.unwrap();
    // The room is there once the child is gone, not before: so the cap bounds the processes.
    initialize_until(&third, StatusCode::OK).await;
}

#[tokio::test]
async fn a_full_broker_is_503() {
    let bed = Bed::new(&[("session.max_sessions", "1")]).await;
    let _alice = bed.in_session("alice").await;
    let bob = bed.signed_in("bob").await;
    let answer = bob.post(initialize("b")).await.unwrap();
    is_error(&answer, 503, "b");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(bed.broker.children().unwrap().len(), 1);
}

#[tokio::test]
async fn forgejo_out_of_reach_is_503_once_the_token_has_run_out_and_comes_back() {
    let bed = Bed::new(&[]).await;
    bed.forgejo.set_lifetimes(SHORT, Duration::from_secs(3600));
    let alice = bed.signed_in("alice").await;
    bed.forgejo.inject(
        "/login/oauth/access_token",
        Fault::Status(StatusCode::BAD_GATEWAY),
        Times::UntilCleared,
    );
    let answer = initialize_until(&alice, StatusCode::SERVICE_UNAVAILABLE).await;
    is_error(&answer, 503, "again");
    assert!(answer.header("retry-after").is_some());
    bed.forgejo.clear_faults();
    open(&alice).await;
}

#[tokio::test]
async fn a_user_who_revoked_at_forgejo_is_401_at_once() {
    let bed = Bed::new(&[]).await;
    // The token looks good for another hour; only its child is told by Forgejo that it is not.
    let alice = bed.signed_in("alice").await;
    let bob = bed.in_session("bob").await;
    bed.forgejo.revoke("alice");
    let answer = alice.post(initialize("first")).await.unwrap();
    is_error(&answer, 401, "first");
    assert!(answer.header("www-authenticate").unwrap().contains("resource_metadata"));
    // Her grants have ended with it: from now on the guard says so.
    let answer = alice.post(initialize("again")).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.header("www-authenticate").unwrap().contains("invalid_token"));
    // One renewal has told, and others notice nothing.
    let counters = bed.forgejo.counters();
    assert_eq!((counters.refreshes, counters.refresh_refusals), (0, 1));
    assert_eq!(login_of(&bob).await, "bob");
}

#[tokio::test]
async fn a_session_whose_user_revoked_at_forgejo_is_401_when_it_wakes() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
    bed.forgejo.revoke("alice");
    for child in bed.broker.children().unwrap() {
        child.kill().unwrap();
        child.gone().await.unwrap();
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
    let bed = Bed::with_child(failing, &[]).await;
    let alice = bed.signed_in("alice").await;
    for n in 0..10 {
        is_error(&alice.post(initialize(n)).await.unwrap(), 502, n);
    }
    assert_eq!(
        bed.forgejo.counters().refreshes,
        1,
        "one in a while, however often it is tried"
    );
    alice.refresh().await.unwrap();
}

/// How long a Forgejo token lives in tests that wait for its end.
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
        let bed = Bed::with_child(child, &[]).await;
        let alice = bed.signed_in("alice").await;
        let answer = alice.post(initialize("first")).await.unwrap();
        is_error(&answer, 502, "first");
        assert!(!answer.text().contains(reason), "{}", answer.text());
        bed.broker.log().contains(reason).await;
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
    let bed = Bed::with_child(silent, &[("child.start_timeout", "300ms")]).await;
    let alice = bed.signed_in("alice").await;
    is_error(&alice.post(initialize(1)).await.unwrap(), 502, 1);
    // And nothing of it is left.
    for child in bed.broker.children().unwrap() {
        child.gone().await.unwrap();
    }
}

#[tokio::test]
async fn messages_that_are_none_are_400() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
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
    is_error(&outside.post(tools_list("early")).await.unwrap(), 400, "early");
    assert_eq!(
        is_error(&outside.post(discover()).await.unwrap(), 400, "d")["code"],
        -32601
    );
}

fn discover() -> String {
    json!({ "jsonrpc": "2.0", "id": "d", "method": "server/discover" }).to_string()
}

#[tokio::test]
async fn headers_that_do_not_fit_are_refused_each_with_its_status() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
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
        announce(&bed, &alice, 4 * 1024 * 1024 + 1).await,
        "HTTP/1.1 413 Payload Too Large"
    );
    assert_eq!(login_of(&alice).await, "alice");
}

/// The status line for a body of this length, which is announced and never sent: no refusal waits for it.
async fn announce(bed: &Bed, client: &Client, length: usize) -> String {
    let address = bed.broker.url().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let token = client.access_token().unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    BufReader::new(stream).lines().next_line().await.unwrap().unwrap()
}

#[tokio::test]
async fn an_id_that_is_in_flight_is_409_and_ids_come_back_as_they_were() {
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
    let call = |id: Value, name: &str, arguments: Value| {
        let params = json!({ "name": name, "arguments": arguments });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
    };
    let slow = alice.post(call(json!("same"), "test_sleep", json!({ "ms": 2_000 })));
    let second = async {
        bed.broker.log().contains("test_sleep").await;
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
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
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
    let bed = Bed::new(&[]).await;
    let alice = bed.in_session("alice").await;
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
    let bed = Bed::new(&[]).await;
    let health = Client::new(format!("{}/healthz", bed.broker.url()).parse().unwrap());
    let answer = health.raw(Method::GET, Default::default(), "").await.unwrap();
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["revision"], forgejo_mcp_broker::build::REVISION);
    assert_eq!(body["probes"]["store"], "ok", "{body}");
    assert_eq!(answer.headers.get(header::CONTENT_TYPE), Some(&JSON));
}
