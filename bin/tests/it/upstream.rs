//! `child.mode = "http"`: one MCP server for all sessions, and each request with the token of its own user.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Client,
    broker::{ChildCommand, SharedMcp, programs},
    client::Answer,
};
use tokio::{task::JoinSet, time::timeout};

use crate::harness::{Harness, login_of, open};

const LIMIT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

async fn shared(settings: &[(&str, &str)]) -> (Harness, SharedMcp) {
    Harness::with_shared_mcp(false, settings).await
}

/// A server that checks tokens, and forgets its sessions when it is started again.
async fn strict(settings: &[(&str, &str)]) -> (Harness, SharedMcp) {
    Harness::with_shared_mcp(true, settings).await
}

/// Begins call 7 on a session, which only ends with it, and returns once the server is at it.
async fn call_that_hangs(session: &Client, server: &SharedMcp) -> JoinSet<Answer> {
    let mut calls = JoinSet::new();
    let (headers, caller) = (session.headers(), session.another_session());
    calls.spawn(async move {
        let slow = call(7, "test_sleep", &json!({ "ms": 600_000 }));
        caller.raw(http::Method::POST, headers, slow).await.unwrap()
    });
    server.log().contains("test_sleep").await;
    calls
}

fn call(id: u64, tool: &str, arguments: &Value) -> String {
    let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
}

fn opening() -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } });
    json!({ "jsonrpc": "2.0", "id": "first", "method": "initialize", "params": params }).to_string()
}

/// The error in an answer, which has the id of its request.
#[track_caller]
fn error_in(answer: &Answer, id: &Value) -> Value {
    let response = answer
        .response_to(id)
        .unwrap_or_else(|| panic!("no answer to {id}: {}", answer.text()));
    assert!(response["error"]["message"].is_string(), "{response}");
    response["error"].clone()
}

#[tokio::test]
async fn each_user_acts_as_themself_on_one_server_without_a_child() {
    let (harness, server) = shared(&[]).await;
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
    // Nothing is left there of a session that has ended.
    let told = timeout(LIMIT, server.log().contains_times("session ended", 2));
    told.await.expect("both are told to end");
}

#[tokio::test]
async fn equal_request_ids_of_two_sessions_get_their_own_answers() {
    let (harness, _server) = shared(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    for id in 0..20 {
        let [for_alice, for_bob] = ["for alice", "for bob"].map(|text| call(id, "test_echo", &json!({ "text": text })));
        let (one, other) = tokio::join!(alice.post(for_alice), bob.post(for_bob));
        for (answer, own, foreign) in [(one, "for alice", "for bob"), (other, "for bob", "for alice")] {
            let text = answer.unwrap().response_to(&json!(id)).unwrap().to_string();
            assert!(text.contains(own) && !text.contains(foreign), "{text}");
        }
    }
}

#[tokio::test]
async fn a_renewed_token_is_used_without_anything_being_started() {
    let (harness, server) = shared(&[("session.rotate_interval", "100ms")]).await;
    // Renewed at half its life, so that a slow machine has time to use it.
    harness.forgejo.set_lifetimes(Duration::from_secs(6), HOUR);
    let alice = harness.in_session("alice").await;
    let session = alice.session_id();
    let renewed = timeout(LIMIT, async {
        while harness.forgejo.counters().refreshes < 2 {
            assert_eq!(login_of(&alice).await, "alice");
        }
    });
    renewed.await.expect("tokens run out and are renewed");
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);
    assert_eq!(server.log().count("session opened"), 1, "it is the same session there");
    assert_eq!(harness.broker.log().count("moved to a new backend"), 0);
}

#[tokio::test]
async fn a_server_that_has_forgotten_its_sessions_is_told_the_handshake_anew() {
    let (harness, mut server) = strict(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    server.kill().await.unwrap();
    server.start_again().await.unwrap();
    // However many requests notice it, a session is opened once.
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
async fn a_server_that_takes_any_session_id_is_not_told_anything() {
    let (harness, mut server) = shared(&[]).await;
    let alice = harness.in_session("alice").await;
    server.kill().await.unwrap();
    server.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(server.log().count("session opened"), 0);
}

#[tokio::test]
async fn a_server_out_of_reach_is_an_error_with_the_id_and_costs_no_session() {
    let (harness, mut server) = strict(&[]).await;
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
        "where it is, is not the client's business: {error}"
    );
    // A notification has nobody to tell.
    alice.initialized().await.unwrap();

    let another = alice.another_session();
    let answer = another.post(opening()).await.unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(answer.json()["id"], "first");
    assert!(answer.header("mcp-session-id").is_none());
    assert_eq!(harness.forgejo.counters().refreshes, before, "no token is to blame");

    server.start_again().await.unwrap();
    open(&another).await;
    assert_eq!(login_of(&another).await, "alice");
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn a_server_that_never_answers_does_not_hold_a_handshake_for_ever() {
    // It takes connections, and that is all.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let (harness, _server) = shared(&[("child.upstream.url", &url), ("child.start_timeout", "500ms")]).await;
    let alice = harness.signed_in("alice").await;
    let opening = timeout(LIMIT, alice.initialize()).await.expect("an answer in time");
    assert_eq!(opening.unwrap_err().status().map(|status| status.as_u16()), Some(502));
}

#[tokio::test]
async fn a_session_that_sleeps_waits_for_a_server_that_is_out_of_reach() {
    let settings = [("session.idle_timeout", "1s"), ("session.reap_interval", "100ms")];
    let (harness, mut server) = shared(&settings).await;
    let alice = harness.in_session("alice").await;
    server.log().contains("session ended").await;
    let before = harness.forgejo.counters().refreshes;
    server.kill().await.unwrap();
    let (answer, id) = alice.request("ping", json!({})).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["id"]), (502, &id));
    assert_eq!(harness.forgejo.counters().refreshes, before, "no token is to blame");
    server.start_again().await.unwrap();
    let back = timeout(LIMIT, async {
        loop {
            let (answer, id) = alice.request("ping", json!({})).await.unwrap();
            match answer.status.as_u16() {
                200 => return,
                // Not tried again at once.
                status => assert_eq!((status, &answer.json()["id"]), (503, &id)),
            }
        }
    });
    back.await.expect("it wakes");
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn a_session_outlives_idleness_and_the_broker() {
    let settings = [("session.idle_timeout", "1s"), ("session.reap_interval", "100ms")];
    let (mut harness, server) = strict(&settings).await;
    let alice = harness.in_session("alice").await;
    server.log().contains("session ended").await;
    assert_eq!(login_of(&alice).await, "alice");
    assert!(server.log().count("session opened") >= 2);

    harness.broker.terminate().await.unwrap();
    harness.broker.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");

    // Killed in its sleep, so that the record is known to be written.
    let asleep = timeout(
        LIMIT,
        server
            .log()
            .contains_times("session ended", server.log().count("session opened")),
    );
    asleep.await.expect("it falls asleep");
    harness.broker.kill().await.unwrap();
    harness.broker.start_again().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn a_session_goes_on_when_the_operator_changes_the_mode() {
    let (mut harness, server) = strict(&[]).await;
    let alice = harness.in_session("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    harness.broker.terminate().await.unwrap();
    let child = ChildCommand::fake_forgejo_mcp(&programs().fake_forgejo_mcp).with_test_tools();
    harness.broker.configure(&[], Some(child));
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
async fn a_token_that_the_server_refuses_is_renewed_once() {
    let (harness, _server) = strict(&[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.forgejo.counters().refreshes;
    // For Forgejo the token has run out, and for the broker it has not.
    harness.forgejo.set_clock_skew(7200);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, before + 1, "the new one is kept");

    // What Forgejo refuses next is not renewed at once again, and the client is told.
    harness.forgejo.set_clock_skew(14_400);
    let (answer, id) = alice.request("ping", json!({})).await.unwrap();
    error_in(&answer, &id);
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);

    // Nor is it for another session of the same user.
    let another = alice.another_session();
    assert_eq!(another.post(opening()).await.unwrap().status, 502);
    assert_eq!(harness.forgejo.counters().refreshes, before + 1);
}

#[tokio::test]
async fn a_user_who_revoked_has_to_sign_in_again() {
    let (harness, _server) = strict(&[]).await;
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
    // Also when that shows at the opening of a session.
    harness.forgejo.revoke("bob");
    let answer = bob.another_session().post(opening()).await.unwrap();
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_new_sign_in_moves_nothing() {
    let (harness, server) = shared(&[]).await;
    let alice = harness.in_session("alice").await;
    harness.signed_in("alice").await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(server.log().count("session opened"), 1);
}

#[tokio::test]
async fn what_comes_before_an_answer_and_what_belongs_to_none_reaches_the_client() {
    let (harness, server) = shared(&[]).await;
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

    // A stream to the server is there while a client listens, and only then.
    assert_eq!(server.log().count("listening"), 0);
    let mut hers = alice.listen(None).await.unwrap();
    server.log().contains("listening").await;
    alice.call_tool("test_announce", json!({})).await.unwrap();
    let heard = timeout(LIMIT, async {
        loop {
            let event = hers.next().await.unwrap().expect("the stream goes on");
            if event.data.contains("tools/list_changed") {
                return;
            }
        }
    });
    heard.await.expect("it is heard");
    assert_eq!(server.log().count("listening"), 1, "nobody listens for bob");
    assert_eq!(login_of(&bob).await, "bob");
}

#[tokio::test]
async fn a_cancelled_request_ends_at_the_server() {
    let (harness, server) = shared(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = call_that_hangs(&alice, &server).await;
    let cancellation = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    assert_eq!(alice.post(cancellation.to_string()).await.unwrap().status, 202);
    server.log().contains("request abandoned").await;
    let answer = calls.join_next().await.unwrap().unwrap();
    error_in(&answer, &json!(7));
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn the_end_of_a_session_ends_its_requests_at_the_server() {
    let (harness, server) = shared(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut calls = call_that_hangs(&alice, &server).await;
    alice.delete().await.unwrap();
    server.log().contains("request abandoned").await;
    server.log().contains("session ended").await;
    error_in(&calls.join_next().await.unwrap().unwrap(), &json!(7));
}

#[tokio::test]
async fn the_broker_stops_with_a_request_under_way() {
    let (mut harness, server) = shared(&[("server.drain_timeout", "100ms")]).await;
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
    let status = timeout(LIMIT, harness.broker.terminate())
        .await
        .expect("it stops")
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
    let client: &Client = &alice;
    let log = harness.broker.log().text();
    assert!(
        log.contains("\"level\":\"TRACE\"") && log.contains("it is open again") && log.contains("renewing it"),
        "the log is not complete enough to prove anything"
    );
    for secret in [client.access_token(), client.refresh_token(), client.session_id()] {
        assert!(!log.contains(&secret.unwrap()), "a secret is in the log");
    }
    assert!(!log.contains("eyJ"), "a Forgejo token is in the log");
    for digit in ('0'..='9').chain('a'..='f') {
        let id = format!("mcp-session-{digit}");
        assert!(!log.contains(&id), "a session id of the server is in the log");
    }
}
