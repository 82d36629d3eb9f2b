//! Questions of a server in the middle of a call: the call waits at its child while its client has
//! the questions, and goes on with the retry that brings the answers.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{answered, ask, child_of, with_every_feature, with_forms, yes};
use crate::{
    conversation::{IDLE, kill_child, rotate},
    harness::{Harness, SHORT_IDLE_TIMEOUT},
};

fn accept(content: &Value) -> Value {
    json!({ "action": "accept", "content": content })
}

#[tokio::test]
async fn one_question_then_the_result() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let tool = "test_input_required_result_elicitation";
    let asked = alice.call_tool(tool, json!({})).await.unwrap();
    assert_eq!(asked.questions().keys().collect::<Vec<_>>(), ["user_name"]);
    let question = &asked.questions()["user_name"];
    assert_eq!(question["method"], "elicitation/create");
    assert_eq!(question["params"].get("_meta"), None, "{question}");
    let answers = json!({ "user_name": accept(&json!({ "name": "Ada" })), "unknown": {} });
    assert_eq!(
        alice.retry(&asked, answers.clone()).await.unwrap().text(),
        "Hello, Ada!"
    );
    // A first call may bring the answer, since the server names the key.
    let params = json!({ "name": tool, "inputResponses": answers });
    assert_eq!(alice.request("tools/call", params).await.unwrap().text(), "Hello, Ada!");
}

#[tokio::test]
async fn question_of_a_prompt_then_the_result() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let params = json!({ "name": "test_input_required_result_prompt" });
    let asked = alice.request("prompts/get", params).await.unwrap();
    assert!(asked.questions().contains_key("user_context"));
    let answers = json!({ "user_context": accept(&json!({ "context": "tests" })) });
    let result = alice.retry(&asked, answers).await.unwrap().result().to_string();
    assert!(result.contains("Use this context: \\\"tests\\\""), "{result}");
}

#[tokio::test]
async fn two_rounds_have_two_states() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let tool = "test_input_required_result_multi_round";
    let first = alice.call_tool(tool, json!({})).await.unwrap();
    let answers = json!({ "step1": accept(&json!({ "name": "Ada" })) });
    let second = alice.retry(&first, answers).await.unwrap();
    assert_eq!(second.questions().keys().collect::<Vec<_>>(), ["step2"]);
    assert_ne!(first.result()["requestState"], second.result()["requestState"]);
    let answers = json!({ "step2": accept(&json!({ "color": "blue" })) });
    assert_eq!(alice.retry(&second, answers).await.unwrap().text(), "Ada likes blue");
}

#[tokio::test]
async fn three_questions_at_once_are_answered_in_parts() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let tool = "test_input_required_result_multiple_inputs";
    let asked = alice.call_tool(tool, json!({})).await.unwrap();
    assert_eq!(asked.questions().len(), 3, "{:?}", asked.questions());
    let name = json!({ "user_name": accept(&json!({ "name": "Ada" })), "greeting": { "role": "user" } });
    let rest = alice.retry(&asked, name).await.unwrap();
    let keys: Vec<_> = rest.questions().keys().collect();
    assert_eq!(
        keys,
        ["client_roots", "greeting"],
        "an answer of the wrong form is none"
    );
    let message = json!({ "role": "assistant", "content": { "type": "text", "text": "Hi" }, "model": "m" });
    let answers = json!({ "client_roots": { "roots": [{ "uri": "file:///r" }] }, "greeting": message });
    assert_eq!(alice.retry(&rest, answers).await.unwrap().text(), "Hi Ada file:///r");
}

#[tokio::test]
async fn refusals_are_answers() {
    let (_harness, alice) = with_forms(&[]).await;
    for action in ["decline", "cancel"] {
        let asked = ask(&alice, "sure?").await;
        let answers = json!({ "elicitation-1": { "action": action } });
        let got = alice.retry(&asked, answers).await.unwrap().json();
        assert_eq!(got["answers"][0]["result"], json!({ "action": action }));
    }
}

#[tokio::test]
async fn calls_in_parallel_with_equal_ids_have_their_own_questions() {
    let (_harness, alice) = with_forms(&[]).await;
    let mut calls = JoinSet::new();
    for number in 0..4 {
        let window = alice.client().modern().with_capabilities(json!({ "elicitation": {} }));
        calls.spawn(async move {
            let mark = format!("question-{number}");
            // The ids of questions are unique in the child: as text in the tool's arguments.
            let mut message = window.tool_call("test_ask", &json!({ "id": mark, "question": mark }));
            message["id"] = json!(1);
            let asked = window.send(message).await.unwrap();
            assert_eq!(asked.questions().len(), 1);
            let (key, question) = asked.questions().iter().next().unwrap();
            // A question says only what it asks; the answer goes to the one that has asked it.
            let nonce = question["params"]["message"].clone();
            let mut retry = window.retry_message(&asked, json!({ key: accept(&json!({ "nonce": nonce })) }));
            retry["id"] = json!(1);
            let reply = window.send(retry).await.unwrap();
            (mark, answered(&reply).0)
        });
    }
    for (mark, nonce) in calls.join_all().await {
        assert_eq!(mark, nonce);
    }
}

/// Nothing says which call a question is about, so each client may get the other's: the answers
/// still reach the tools that have asked, even if a call ends before its client has answered.
#[tokio::test]
async fn exchanged_questions_of_two_calls_are_both_answered() {
    let (harness, alice) = with_forms(&[]).await;
    child_of(&alice).await;
    let mut calls = JoinSet::new();
    for (mark, ms) in [("a", 600), ("b", 300)] {
        let window = alice.client().modern().with_capabilities(json!({ "elicitation": {} }));
        calls.spawn(async move {
            let arguments = json!({ "mark": mark, "ms": ms, "ask": true });
            let asked = window.call_tool("test_stamp", arguments).await.unwrap();
            (mark, window, asked)
        });
        harness.broker.log().contains(&format!("took {mark} ")).await;
    }
    let mut calls = calls.join_all().await;
    calls.sort_by_key(|(mark, ..)| std::cmp::Reverse(*mark));
    let mut retries = JoinSet::new();
    for (mark, window, asked) in calls {
        let nonce = asked.questions()["elicitation-1"]["params"]["message"].clone();
        let nonce = nonce.as_str().unwrap().to_owned();
        let gave = format!("gave {nonce} ");
        retries.spawn(async move { (mark, window.retry(&asked, yes(&nonce)).await.unwrap()) });
        // The tool that has asked ends, before the next client answers.
        harness.broker.log().contains(&gave).await;
    }
    for (mark, reply) in retries.join_all().await {
        let json = reply.json();
        assert_eq!((&json["mark"], &json["nonce"]), (&json!(mark), &json!(mark)));
    }
}

#[tokio::test]
async fn parked_call_stays_with_its_child_over_a_rotation() {
    let (harness, alice) = with_forms(&[]).await;
    let old = child_of(&alice).await;
    let asked = ask(&alice, "sure?").await;
    rotate(&harness, "alice").await;
    let new = child_of(&alice).await;
    assert_ne!(new, old);
    let reply = alice.retry(&asked, yes("1")).await.unwrap();
    assert_eq!(answered(&reply), (json!("1"), old));
    harness.wait_for_children(1).await;
    assert_eq!(child_of(&alice).await, new);
}

#[tokio::test]
async fn parked_call_keeps_its_child_however_short_the_idle_timeout() {
    let (harness, alice) = with_forms(&SHORT_IDLE_TIMEOUT).await;
    let asked = ask(&alice, "sure?").await;
    let child = harness.only_child().pid;
    // The session of bob is idle later than that of alice would be.
    harness.in_session("bob").await;
    harness.broker.log().contains(IDLE).await;
    harness.wait_for_children(1).await;
    let reply = alice.retry(&asked, yes("1")).await.unwrap();
    assert_eq!(answered(&reply), (json!("1"), json!(child)));
    harness.broker.log().contains_times(IDLE, 2).await;
}

#[tokio::test]
async fn parked_call_is_lost_with_its_child() {
    let (harness, alice) = with_forms(&[]).await;
    let asked = ask(&alice, "sure?").await;
    kill_child(&harness).await;
    let lost = alice.retry(&asked, yes("1")).await.unwrap();
    assert_eq!(
        (lost.error(), lost.data()),
        ((400, -32602), &json!({ "reason": "lost" }))
    );
    answered(&alice.retry(&ask(&alice, "again?").await, yes("2")).await.unwrap());
}

#[tokio::test]
async fn parked_call_is_lost_with_the_broker() {
    let mut harness = Harness::new(&[("server.drain_timeout", "100ms")]).await;
    let alice = harness.signed_in("alice").await.modern();
    let alice = alice.with_capabilities(json!({ "elicitation": {} }));
    for kill in [true, false] {
        let asked = ask(&alice, "sure?").await;
        if kill {
            harness.kill_and_restart().await;
        } else {
            harness.restart().await;
        }
        // The question of the next call has the same place.
        let next = ask(&alice, "next?").await;
        let lost = alice.retry(&asked, yes("of the first")).await.unwrap();
        assert_eq!(
            (lost.error(), lost.data()),
            ((400, -32602), &json!({ "reason": "lost" }))
        );
        let reply = alice.retry(&next, yes("of the next")).await.unwrap();
        assert_eq!(answered(&reply).0, "of the next");
    }
}

#[tokio::test]
async fn retry_with_other_capabilities_goes_to_the_child_that_has_asked() {
    let (harness, alice) = with_forms(&[]).await;
    let asked = ask(&alice, "sure?").await;
    let child = harness.only_child().pid;
    let alice = alice.with_capabilities(json!({}));
    let reply = alice.retry(&asked, yes("1")).await.unwrap();
    assert_eq!(answered(&reply), (json!("1"), json!(child)));
    assert_eq!(harness.only_child().pid, child);
}
