//! `child.mode = "http"`: all sessions share one MCP server, and each request carries the Forgejo
//! token of its own user.

mod modern;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Client, broker::SharedMcp, client::Answer};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{
    Harness, SHORT_IDLE_TIMEOUT, WAIT_LIMIT, fake_forgejo_mcp, login_of,
    messages::{assert_equal_ids_stay_apart, initialize_request},
    open_session,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A server that accepts any session id and does not check tokens.
async fn with_lenient_server(settings: &[(&str, &str)]) -> (Harness, SharedMcp) {
    Harness::with_shared_mcp(false, settings).await
}

/// A server that checks tokens and forgets its sessions when it restarts.
async fn with_strict_server(settings: &[(&str, &str)]) -> (Harness, SharedMcp) {
    Harness::with_shared_mcp(true, settings).await
}

/// Sends a call with id 7 that does not end by itself, and returns once the server has received it.
async fn start_endless_call(session: &Client, server: &SharedMcp) -> JoinSet<Answer> {
    let mut calls = JoinSet::new();
    let (headers, caller) = (session.headers(), session.another_session());
    calls.spawn(async move {
        let slow = call(7, "test_sleep", &json!({ "ms": 600_000 }));
        caller.raw(http::Method::POST, headers, slow).await.unwrap()
    });
    server.log().contains("test_sleep").await;
    calls
}

/// A tool call whose progress token is its id.
fn call(id: u64, tool: &str, arguments: &Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

/// The error in the response to the request with this id.
#[track_caller]
fn error_in(answer: &Answer, id: &Value) -> Value {
    let response = answer
        .response_to(id)
        .unwrap_or_else(|| panic!("no answer to {id}: {}", answer.text()));
    assert!(response["error"]["message"].is_string(), "{response}");
    response["error"].clone()
}

#[tokio::test]
async fn each_user_acts_as_themself_on_the_shared_server_without_a_child() {
    let (harness, server) = with_lenient_server(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    let mut calls = JoinSet::new();
    for (login, session) in [("alice", alice), ("bob", bob)] {
        assert!(!session.session_id().unwrap().starts_with("mcp-session-"));
        calls.spawn(async move {
            for _ in 0..10 {
                assert_eq!(login_of(&session).await, login);
            }
            assert!(session.list_tools().await.unwrap().len() >= 141);
            session.delete().await.unwrap();
        });
    }
    calls.join_all().await;
    assert!(harness.broker.children().unwrap().is_empty());
    assert_eq!(server.log().count("session opened"), 2);
    // Each session that ends here ends at the server too.
    let ended = timeout(WAIT_LIMIT, server.log().contains_times("session ended", 2));
    ended.await.expect("both sessions end at the server");
}

#[tokio::test]
async fn equal_request_ids_of_two_sessions_get_their_own_responses() {
    let (harness, _server) = with_lenient_server(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    let echo = |id, text: &str| call(id, "test_echo", &json!({ "text": text }));
    assert_equal_ids_stay_apart(&alice, &bob, echo).await;
}

#[tokio::test]
async fn renewed_token_is_used_without_a_new_upstream_session() {
    let (harness, server) = with_lenient_server(&[("session.rotate_interval", "100ms")]).await;
    // A token is renewed at half of its lifetime, so that a slow machine has time to use it.
    harness.forgejo.set_lifetimes(Duration::from_secs(6), HOUR);
    let alice = harness.in_session("alice").await;
    let session = alice.session_id();
    let renewed = timeout(WAIT_LIMIT, async {
        while harness.forgejo.counters().refreshes < 2 {
            assert_eq!(login_of(&alice).await, "alice");
        }
    });
    renewed.await.expect("tokens expire and are renewed");
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);
    assert_eq!(
        server.log().count("session opened"),
        1,
        "the upstream session stays the same"
    );
    assert_eq!(harness.broker.log().count("moved to a new backend"), 0);
}

#[tokio::test]
async fn handshake_is_replayed_to_a_server_that_forgot_its_sessions() {
    let (harness, mut server) = with_strict_server(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    server.kill().await.unwrap();
    server.start_again().await.unwrap();
    // Many requests find the session missing; it is reopened once.
    let mut calls = JoinSet::new();
    for id in 10..18 {
        let (headers, alice) = (alice.headers(), alice.another_session());
        calls.spawn(async move {
            let answer = alice.raw(http::Method::POST, headers, call(id, "get_my_user_info", &json!({})));
            let answer = answer.await.unwrap();
            let text = answer.response_to(&json!(id)).unwrap()["result"].to_string();
            assert!(text.contains("alice"), "{text}");
        });
    }
    calls.join_all().await;
    assert_eq!(server.log().count("session opened"), 1);
    assert_eq!(login_of(&bob).await, "bob");
    assert_eq!(server.log().count("session opened"), 2);
    assert_eq!(harness.broker.log().count("it is open again"), 2);
}

#[tokio::test]
async fn handshake_is_replayed_to_a_server_that_answers_400_to_a_session_that_it_forgot() {
    let (harness, mut server) = with_strict_server(&[]).await;
    server.set_bad_request_for_unknown_session();
    let alice = harness.in_session("alice").await;
    server.kill().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(server.log().count("session opened"), 1);
}

#[tokio::test]
async fn handshake_is_not_replayed_to_a_server_that_accepts_any_session_id() {
    let (harness, mut server) = with_lenient_server(&[]).await;
    let alice = harness.in_session("alice").await;
    server.kill().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(server.log().count("session opened"), 0);
}

#[tokio::test]
async fn unreachable_server_is_an_error_with_the_id_and_ends_no_session() {
    let (harness, mut server) = with_strict_server(&[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.forgejo.counters().refreshes;
    server.kill().await.unwrap();
    let (answer, id) = alice.request("tools/list", json!({})).await.unwrap();
    assert_eq!(answer.status, 200);
    let error = error_in(&answer, &id);
    assert_eq!(error["code"], -32000);
    let port = server.url();
    let port = port.rsplit(':').next().unwrap().trim_end_matches("/mcp");
    assert!(
        !error.to_string().contains(port),
        "the error does not show the server's address: {error}"
    );
    // A notification has no response that could carry the error.
    alice.initialized().await.unwrap();

    let another = alice.another_session();
    let answer = another.post(initialize_request("first")).await.unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["id"], "first");
    assert!(answer.header("mcp-session-id").is_none());
    assert_eq!(harness.forgejo.counters().refreshes, before, "no token is renewed");

    server.start_again().await.unwrap();
    open_session(&another).await;
    assert_eq!(login_of(&another).await, "alice");
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn handshake_with_a_silent_server_times_out() {
    // It accepts connections and never responds.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let (harness, _server) =
        with_lenient_server(&[("child.upstream.url", &url), ("child.start_timeout", "500ms")]).await;
    let alice = harness.signed_in("alice").await;
    let response = timeout(WAIT_LIMIT, alice.initialize())
        .await
        .expect("the broker responds in time");
    assert_eq!(response.unwrap_err().status().map(|status| status.as_u16()), Some(502));
}

#[tokio::test]
async fn dormant_session_is_revived_once_its_server_is_reachable_again() {
    let (harness, mut server) = with_lenient_server(&SHORT_IDLE_TIMEOUT).await;
    let alice = harness.in_session("alice").await;
    server.log().contains("session ended").await;
    let before = harness.forgejo.counters().refreshes;
    server.kill().await.unwrap();
    let (answer, id) = alice.request("ping", json!({})).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (502, &id));
    assert_eq!(harness.forgejo.counters().refreshes, before, "no token is renewed");
    server.start_again().await.unwrap();
    let revival = timeout(WAIT_LIMIT, async {
        loop {
            let (answer, id) = alice.request("ping", json!({})).await.unwrap();
            match answer.status.as_u16() {
                200 => return,
                // The restart backoff delays the next attempt.
                status => assert_eq!((status, &answer.json()["id"]), (503, &id)),
            }
        }
    });
    revival.await.expect("the session is revived");
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn session_survives_idleness_and_restarts_of_the_broker() {
    let (mut harness, server) = with_strict_server(&SHORT_IDLE_TIMEOUT).await;
    let alice = harness.in_session("alice").await;
    server.log().contains("session ended").await;
    assert_eq!(login_of(&alice).await, "alice");
    assert!(server.log().count("session opened") >= 2);

    harness.restart().await;
    assert_eq!(login_of(&alice).await, "alice");

    // The broker is killed while the session is dormant, because its record is written by then.
    let dormant = timeout(
        WAIT_LIMIT,
        server
            .log()
            .contains_times("session ended", server.log().count("session opened")),
    );
    dormant.await.expect("the session becomes dormant");
    harness.kill_and_restart().await;
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn session_survives_a_change_of_the_child_mode() {
    let (mut harness, server) = with_strict_server(&[]).await;
    let alice = harness.in_session("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    harness.broker.terminate().await.unwrap();
    harness.broker.configure(&[], Some(fake_forgejo_mcp()));
    harness.broker.unset(&["child.mode", "child.upstream.url"]);
    harness.broker.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.broker.children().unwrap().len(), 1);

    harness.broker.terminate().await.unwrap();
    let url = server.url();
    harness
        .broker
        .configure(&[("child.mode", "http"), ("child.upstream.url", &url)], None);
    harness.broker.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert!(harness.broker.children().unwrap().is_empty());
}

#[tokio::test]
async fn token_rejected_by_the_server_is_renewed_once() {
    let (harness, _server) = with_strict_server(&[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.forgejo.counters().refreshes;
    // Forgejo's clock is ahead: for Forgejo the token has expired, for the broker it has not.
    harness.forgejo.set_clock_skew(7200);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(
        harness.forgejo.counters().refreshes,
        before + 1,
        "the new token is used again"
    );

    // The next rejected token is not renewed again at once, and the client gets an error.
    harness.forgejo.set_clock_skew(14_400);
    let (answer, id) = alice.request("ping", json!({})).await.unwrap();
    error_in(&answer, &id);
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);

    // Another session of the same user does not renew it either.
    let another = alice.another_session();
    assert_eq!(another.post(initialize_request("first")).await.unwrap().status, 502);
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);
}

#[tokio::test]
async fn user_who_revoked_at_forgejo_has_to_sign_in_again() {
    let (harness, _server) = with_strict_server(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    harness.forgejo.revoke("alice");
    let (answer, id) = alice.request("ping", json!({})).await.unwrap();
    if answer.status != 401 {
        error_in(&answer, &id);
    }
    let (answer, _) = alice.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, 401);
    assert!(answer.header("www-authenticate").is_some());
    assert_eq!(login_of(&bob).await, "bob");
    assert_eq!(login_of(&harness.in_session("alice").await).await, "alice");
    // The same holds when the broker learns of it while it opens a session.
    harness.forgejo.revoke("bob");
    let answer = bob.another_session().post(initialize_request("first")).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn new_sign_in_does_not_reopen_the_upstream_session() {
    let (harness, server) = with_lenient_server(&[]).await;
    let alice = harness.in_session("alice").await;
    harness.signed_in("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(server.log().count("session opened"), 1);
}

#[tokio::test]
async fn progress_and_unsolicited_notifications_reach_the_client() {
    let (harness, server) = with_lenient_server(&[]).await;
    let alice = harness.in_session("alice").await;
    let bob = harness.in_session("bob").await;
    let answer = alice
        .post(call(7, "test_progress", &json!({ "steps": 3 })))
        .await
        .unwrap();
    assert!(answer.is_stream());
    let progress = answer
        .messages
        .iter()
        .filter(|message| message["method"] == "notifications/progress");
    let steps: Vec<&Value> = progress.map(|message| &message["params"]["progress"]).collect();
    assert_eq!(steps, [1, 2, 3]);

    // The broker listens at the server only while the client listens.
    assert_eq!(server.log().count("listening"), 0);
    let mut listening = alice.listen(None).await.unwrap();
    server.log().contains("listening").await;
    alice.call_tool("test_announce", json!({})).await.unwrap();
    let notified = timeout(WAIT_LIMIT, async {
        loop {
            let event = listening.next().await.unwrap().expect("the stream goes on");
            if event.data.contains("tools/list_changed") {
                return;
            }
        }
    });
    notified.await.expect("the notification arrives");
    assert_eq!(server.log().count("listening"), 1, "the broker does not listen for bob");
    assert_eq!(login_of(&bob).await, "bob");
}

#[tokio::test]
async fn cancelled_request_is_aborted_at_the_server() {
    let (harness, server) = with_lenient_server(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = start_endless_call(&alice, &server).await;
    let cancellation = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    assert_eq!(alice.post(cancellation.to_string()).await.unwrap().status, 202);
    server.log().contains("request abandoned").await;
    let answer = calls.join_next().await.unwrap().unwrap();
    error_in(&answer, &json!(7));
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn ended_session_aborts_its_requests_at_the_server() {
    let (harness, server) = with_lenient_server(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = start_endless_call(&alice, &server).await;
    alice.delete().await.unwrap();
    server.log().contains("request abandoned").await;
    server.log().contains("session ended").await;
    error_in(&calls.join_next().await.unwrap().unwrap(), &json!(7));
}

#[tokio::test]
async fn broker_stops_with_a_request_in_flight() {
    let (mut harness, server) = with_lenient_server(&[("server.drain_timeout", "100ms")]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = JoinSet::new();
    calls.spawn(async move {
        alice
            .request(
                "tools/call",
                json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } }),
            )
            .await
    });
    server.log().contains("test_sleep").await;
    let status = timeout(WAIT_LIMIT, harness.broker.terminate())
        .await
        .expect("the broker stops")
        .unwrap();
    assert!(status.success());
    server.log().contains("session ended").await;
    calls.abort_all();
}

#[tokio::test]
async fn no_secret_reaches_the_log() {
    let (harness, mut server) = Harness::with_shared_mcp(true, &[("log.filter", "trace")]).await;
    let alice = harness.in_session("alice").await;
    login_of(&alice).await;
    server.kill().await.unwrap();
    let (_unreachable, _) = alice.request("ping", json!({})).await.unwrap();
    server.start_again().await.unwrap();
    login_of(&alice).await;
    harness.forgejo.set_clock_skew(7200);
    login_of(&alice).await;
    let log = harness.broker.log().text();
    assert!(
        log.contains("\"level\":\"TRACE\"") && log.contains("it is open again") && log.contains("renewing it"),
        "the log lacks lines of this test, so it proves nothing"
    );
    for secret in [alice.access_token(), alice.refresh_token(), alice.session_id()] {
        assert!(!log.contains(&secret.unwrap()), "a secret is in the log");
    }
    assert!(!log.contains("eyJ"), "a Forgejo token is in the log");
    for digit in ('0'..='9').chain('a'..='f') {
        let id = format!("mcp-session-{digit}");
        assert!(!log.contains(&id), "a session id of the server is in the log");
    }
}
