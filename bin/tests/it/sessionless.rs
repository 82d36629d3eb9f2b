//! Clients up to 2025-11-25 that drop their session id after `initialize`: their requests belong to
//! the session that their sign-in has opened last.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::Client;
use tokio::task::JoinSet;

use crate::{
    conversation::{
        CHILD_STARTED, IDLE, call,
        calls::{OpenCall, accept, cancel, nonces},
        kill_child, next_message, rotate, text_of,
    },
    harness::{
        Harness, SHORT_IDLE_TIMEOUT, login_of,
        messages::{assert_error, tool_call_request, tools_list_request},
        open_session,
    },
};

const MADE: &str = "implicit session made";

/// The number of calls in parallel.
const CALLS: usize = 50;
/// The number of their connections.
const CONNECTIONS: usize = 5;

/// A client that has lost the id of its session, and the same client with it.
async fn without_id(harness: &Harness, login: &str) -> (Client, Client) {
    let keyed = harness.in_session(login).await;
    let client = keyed.another_session();
    (client, keyed)
}

/// The process that serves the requests of a client.
async fn child_of(client: &Client) -> Value {
    call(client, "test_write", json!({})).await["pid"].clone()
}

#[tokio::test]
async fn calls_go_to_the_child_of_the_last_initialize() {
    let harness = Harness::new(&[]).await;
    let (alice, first) = without_id(&harness, "alice").await;
    let child = child_of(&alice).await;
    assert_eq!(child, child_of(&first).await);
    let last = first.another_session();
    open_session(&last).await;
    let moved = child_of(&alice).await;
    assert_eq!(moved, child_of(&last).await);
    assert_ne!(moved, child);
    assert_eq!(child, child_of(&first).await, "the first session goes on");
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2);
}

#[tokio::test]
async fn other_grants_do_not_reach_the_session() {
    let harness = Harness::new(&[]).await;
    let same_user = harness.other_client("alice").await;
    let bob = harness.signed_in("bob").await;
    let (alice, _keyed) = without_id(&harness, "alice").await;
    let mut asking = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let question = asking.question().await;
    for (other, login) in [(&same_user, "alice"), (&bob, "bob")] {
        accept(other, &question, "forged").await;
        cancel(other, asking.id()).await;
        assert_ne!(child_of(other).await, child_of(&alice).await);
        assert_eq!(login_of(other).await, login);
        accept(other, &question, "forged").await;
        cancel(other, asking.id()).await;
    }
    accept(&alice, &question, "yes").await;
    assert_eq!(nonces(&asking.response().await), ["yes"]);
}

#[tokio::test]
async fn question_is_answered_without_an_id_whichever_session_of_the_grant_has_asked() {
    let harness = Harness::new(&[]).await;
    let (alice, first) = without_id(&harness, "alice").await;
    let mut of_first = OpenCall::ask(&first, "a", "q1", "first?").await;
    let last = first.another_session();
    open_session(&last).await;
    let mut of_last = OpenCall::ask(&alice, "a", "q1", "last?").await;
    let (question, other) = (of_first.question().await, of_last.question().await);
    accept(&alice, &other, "to the last").await;
    accept(&alice, &question, "to the first").await;
    assert_eq!(nonces(&of_first.response().await), ["to the first"]);
    assert_eq!(nonces(&of_last.response().await), ["to the last"]);
}

#[tokio::test]
async fn calls_with_equal_ids_in_parallel_get_their_own_answers() {
    let harness = Harness::new(&[]).await;
    let (alice, _keyed) = without_id(&harness, "alice").await;
    let windows: Vec<_> = (0..CONNECTIONS).map(|_| alice.another_session()).collect();
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let window = windows[number % CONNECTIONS].another_session();
        calls.spawn(async move {
            let arguments = json!({ "mark": number.to_string(), "ms": 20 });
            let message = tool_call_request(1, "test_stamp", &arguments);
            let answer = window.post(message).await.unwrap();
            let response = answer.response_to(&json!(1)).cloned();
            (number, text_of(&response.unwrap_or_default())["mark"].clone())
        });
    }
    let answers = calls.join_all().await;
    assert_eq!(answers.len(), CALLS);
    for (number, mark) in answers {
        assert_eq!(mark, number.to_string());
    }
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 1);
}

#[tokio::test]
async fn cancellation_acts_only_if_one_running_call_has_its_id() {
    let harness = Harness::new(&[]).await;
    let (alice, _keyed) = without_id(&harness, "alice").await;
    let window = alice.another_session();
    let mut first = OpenCall::ask(&alice, 7, "q1", "first?").await;
    let mut second = OpenCall::ask(&window, 7, "q2", "second?").await;
    let questions = (first.question().await, second.question().await);
    cancel(&alice, &json!(7)).await;
    accept(&window, &questions.0, "to the first").await;
    accept(&alice, &questions.1, "to the second").await;
    assert_eq!(nonces(&first.response().await), ["to the first"]);
    assert_eq!(nonces(&second.response().await), ["to the second"]);

    let mut only = OpenCall::ask(&alice, 7, "q3", "only?").await;
    only.question().await;
    cancel(&window, &json!(7)).await;
    let received = "got notifications/cancelled";
    harness.broker.log().contains(received).await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.broker.log().count(received), 1);
}

#[tokio::test]
async fn rotation_moves_calls_and_leaves_questions_with_their_child() {
    let harness = Harness::new(&[]).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    let old = child_of(&alice).await;
    let mut asking = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let question = asking.question().await;
    rotate(&harness, "alice").await;
    let new = child_of(&alice).await;
    assert_ne!(new, old);
    assert_eq!(new, child_of(&keyed).await);
    accept(&alice, &question, "yes").await;
    let response = asking.response().await;
    assert_eq!(
        (&nonces(&response)[0], &text_of(&response)["pid"]),
        (&json!("yes"), &old)
    );
}

#[tokio::test]
async fn idle_session_is_woken() {
    let harness = Harness::new(&SHORT_IDLE_TIMEOUT).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    harness.broker.log().contains(IDLE).await;
    harness.wait_for_children(0).await;
    cancel(&alice, &json!(1)).await;
    assert_eq!(
        harness.broker.log().count(CHILD_STARTED),
        1,
        "a notification wakes nothing"
    );
    assert_eq!(child_of(&alice).await, child_of(&keyed).await);
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2);
    assert_eq!(harness.broker.log().count(MADE), 0);
}

#[tokio::test]
async fn crash_of_the_child_is_survived() {
    let harness = Harness::new(&[]).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    kill_child(&harness).await;
    assert_eq!(child_of(&alice).await, child_of(&keyed).await);
}

#[tokio::test]
async fn restart_and_kill_of_the_broker_are_survived() {
    let mut harness = Harness::new(&[]).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    let never = harness.signed_in("bob").await;
    assert_eq!(login_of(&never).await, "bob");
    // The session has just been opened: its record is as old as its first answer.
    harness.kill_and_restart().await;
    assert_eq!(login_of(&never).await, "bob");
    assert_eq!(child_of(&alice).await, child_of(&keyed).await);
    harness.restart().await;
    assert_eq!(child_of(&alice).await, child_of(&keyed).await);
    assert_eq!(login_of(&never).await, "bob");
}

#[tokio::test]
async fn ended_session_is_made_again() {
    let mut harness = Harness::new(&[]).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    let before = child_of(&alice).await;
    let id = keyed.session_id();
    keyed.delete().await.unwrap();
    let after = child_of(&alice).await;
    assert_ne!(after, before);
    // It was made from the handshake of the ended one: with elicitation.
    let mut asking = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let question = asking.question().await;
    accept(&alice, &question, "yes").await;
    assert_eq!(nonces(&asking.response().await), ["yes"]);
    keyed.set_session_id(id.as_deref());
    assert_eq!(
        keyed.post(tools_list_request(1)).await.unwrap().status,
        StatusCode::NOT_FOUND
    );
    harness.restart().await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.broker.log().count(MADE), 1);
}

#[tokio::test]
async fn grant_that_never_initialized_gets_a_session() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let status = async |method| {
        let answer = alice.raw(method, alice.headers(), "").await.unwrap();
        (answer.status.as_u16(), answer.header("allow").map(str::to_owned))
    };
    let refused = (405, Some("POST".to_owned()));
    assert_eq!(status(Method::GET).await, refused);
    assert_eq!(status(Method::DELETE).await, refused);
    alice.initialized().await.unwrap();
    cancel(&alice, &json!(1)).await;
    assert_eq!(harness.broker.log().count(MADE), 0, "notifications make no session");

    assert!(!alice.list_tools().await.unwrap().is_empty());
    assert_eq!(login_of(&alice).await, "alice");
    let received = call(&alice, "test_received", json!({})).await;
    assert_eq!(received[0]["params"]["capabilities"], json!({}), "{received}");
    let mut listening = alice.listen(None).await.unwrap();
    call(&alice, "test_announce", json!({})).await;
    let message = next_message(&mut listening).await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert_eq!(status(Method::DELETE).await, refused);
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 1);
    assert_eq!(harness.broker.log().count(MADE), 1);
}

#[tokio::test]
async fn leniency_can_be_turned_off() {
    let harness = Harness::new(&[("session.sessionless_legacy", "false")]).await;
    let (alice, keyed) = without_id(&harness, "alice").await;
    let answer = alice.post(tools_list_request("x")).await.unwrap();
    assert_error(&answer, 400, "x");
    for (method, body) in [
        (
            Method::POST,
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        ),
        (Method::POST, r#"{"jsonrpc":"2.0","id":"q","result":{}}"#),
        (Method::GET, ""),
    ] {
        let answer = alice.raw(method.clone(), alice.headers(), body).await.unwrap();
        assert_eq!(answer.status, 400, "{method} {body}");
    }
    assert_eq!(login_of(&keyed).await, "alice");
    let modern = alice.modern().call_tool("test_echo", json!({ "n": 1 })).await.unwrap();
    assert_eq!(
        modern.json(),
        json!({ "n": 1 }),
        "clients of 2026-07-28 are not concerned"
    );
}
