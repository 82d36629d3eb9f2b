//! Questions of children: each is answered by its own answer, whichever child asked it and whatever
//! has happened since.

use serde_json::json;

use super::{
    SOON,
    calls::{OpenCall, accept, cancel, nonces},
    kill_child, rotate, text_of,
};
use crate::harness::{Harness, login_of, open_session};

#[tokio::test]
async fn two_children_ask_with_one_id_and_each_gets_its_own_answer() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut first = OpenCall::ask(&alice, "a", "q1", "delete repo A?").await;
    let of_first = first.question().await;
    rotate(&harness, "alice").await;
    let mut second = OpenCall::ask(&alice, "b", "q1", "delete repo B?").await;
    let of_second = second.question().await;
    assert_eq!(
        (of_first.text.as_str(), of_second.text.as_str()),
        ("delete repo A?", "delete repo B?")
    );
    assert_ne!(of_first.id, of_second.id, "an id is used once in a session");

    accept(&alice, &of_first, "yes to A").await;
    let first = first.response().await;
    assert_eq!(nonces(&first), ["yes to A"]);
    accept(&alice, &of_second, "yes to B").await;
    let second = second.response().await;
    assert_eq!(nonces(&second), ["yes to B"]);
    assert_ne!(
        text_of(&first)["pid"],
        text_of(&second)["pid"],
        "two children have asked, or the test proves nothing"
    );
}

#[tokio::test]
async fn ids_of_questions_are_unique_among_the_sessions_of_a_sign_in() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let other = alice.another_session();
    open_session(&other).await;
    let mut first = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let mut second = OpenCall::ask(&other, "a", "q1", "sure?").await;
    let (of_first, of_second) = (first.question().await, second.question().await);
    assert_ne!(of_first.id, of_second.id);
    accept(&other, &of_second, "yes to the second").await;
    accept(&alice, &of_first, "yes to the first").await;
    assert_eq!(nonces(&first.response().await), ["yes to the first"]);
    assert_eq!(nonces(&second.response().await), ["yes to the second"]);
}

#[tokio::test]
async fn late_answer_to_a_dead_child_is_no_answer_to_the_next() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut first = OpenCall::ask(&alice, "a", "q1", "delete repo A?").await;
    let of_first = first.question().await;
    kill_child(&harness).await;
    let mut second = OpenCall::ask(&alice, "b", "q1", "delete repo B?").await;
    let of_second = second.question().await;
    accept(&alice, &of_first, "yes to A").await;
    accept(&alice, &of_second, "yes to B").await;
    assert_eq!(nonces(&second.response().await), ["yes to B"]);
}

#[tokio::test]
async fn late_answer_to_a_question_before_a_restart_is_no_answer_to_one_after_it() {
    let mut harness = Harness::new(&[("server.drain_timeout", "100ms")]).await;
    let alice = harness.in_session("alice").await;
    let mut first = OpenCall::ask(&alice, "a", "q1", "delete repo A?").await;
    let of_first = first.question().await;
    harness.restart().await;
    let mut second = OpenCall::ask(&alice, "b", "q1", "delete repo B?").await;
    let of_second = second.question().await;
    accept(&alice, &of_first, "yes to A").await;
    accept(&alice, &of_second, "yes to B").await;
    assert_eq!(nonces(&second.response().await), ["yes to B"]);
}

#[tokio::test]
async fn replaced_child_still_gets_its_answers_and_cancellations() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let old = harness.only_child();
    let mut asking = OpenCall::ask(&alice, "asks", "q1", "sure?").await;
    let question = asking.question().await;
    let slow = OpenCall::start(&alice, "slow", "test_sleep", json!({ "ms": 600_000 })).await;
    rotate(&harness, "alice").await;

    cancel(&alice, slow.id()).await;
    let cancelled = format!("got notifications/cancelled pid={}", old.pid);
    tokio::time::timeout(SOON, harness.broker.log().contains(&cancelled))
        .await
        .expect("the child that runs the call learns of its cancellation");
    accept(&alice, &question, "yes").await;
    let response = asking.response().await;
    assert_eq!(nonces(&response), ["yes"]);
    assert_eq!(text_of(&response)["pid"], old.pid);
}

#[tokio::test]
async fn second_question_with_an_open_id_gets_an_error_and_the_log_names_it() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let twice = json!({ "id": "q1", "question": "sure?", "twice": true });
    let mut call = OpenCall::start(&alice, "a", "test_ask", twice).await;
    let question = call.question().await;
    accept(&alice, &question, "yes").await;
    let text = text_of(&call.response().await);
    let answers = text["answers"].as_array().unwrap();
    let count =
        |is_wanted: &dyn Fn(&serde_json::Value) -> bool| answers.iter().filter(|answer| is_wanted(answer)).count();
    assert_eq!(count(&|answer| answer["error"].is_object()), 1, "{text}");
    assert_eq!(
        count(&|answer| answer["result"]["content"]["nonce"] == "yes"),
        1,
        "{text}"
    );
    harness.broker.log().contains("elicitation/create").await;
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn question_of_a_dead_child_is_cancelled_before_its_call_fails() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let mut call = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let question = call.question().await;
    harness.only_child().kill().unwrap();
    let cancelled = call.next().await;
    assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
    assert_eq!(cancelled["params"]["requestId"], question.id);
    let response = call.response().await;
    assert!(response["error"].is_object(), "{response}");
    call.end().await;
}

#[tokio::test]
async fn question_that_is_not_answered_in_time_is_cancelled_and_fails_at_the_child() {
    let harness = Harness::new(&[("session.question_timeout", "5s")]).await;
    let alice = harness.in_session("alice").await;
    let mut call = OpenCall::ask(&alice, "a", "q1", "sure?").await;
    let question = call.question().await;
    let cancelled = call.next().await;
    assert_eq!(cancelled["method"], "notifications/cancelled", "{cancelled}");
    assert_eq!(cancelled["params"]["requestId"], question.id);
    let text = text_of(&call.response().await);
    assert!(text["answers"][0]["error"].is_object(), "{text}");
}

#[tokio::test]
async fn call_that_is_not_answered_in_time_fails_and_is_cancelled_at_the_child() {
    let harness = Harness::new(&[("session.request_timeout", "5s")]).await;
    let alice = harness.in_session("alice").await;
    let child = harness.only_child();
    let mut call = OpenCall::start(&alice, "a", "test_sleep", json!({ "ms": 600_000 })).await;
    let response = call.response().await;
    assert!(response["error"].is_object(), "{response}");
    let cancelled = format!("got notifications/cancelled pid={}", child.pid);
    harness.broker.log().contains(&cancelled).await;
    assert_eq!(login_of(&alice).await, "alice");
}
