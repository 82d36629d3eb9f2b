//! The `requestState` of a call that waits for input: clients carry it, so it comes back changed,
//! late, twice, and from others.

use serde_json::{Value, json};
use testkit::client::{ModernClient, Reply};

use crate::harness::Harness;

const INVALID: (u16, i64) = (400, -32602);

fn with_forms(client: &testkit::Client) -> ModernClient {
    client.modern().with_capabilities(json!({ "elicitation": {} }))
}

async fn ask(client: &ModernClient, question: &str) -> Reply {
    let arguments = json!({ "id": question, "question": question });
    let reply = client.call_tool("test_ask", arguments).await.unwrap();
    assert_eq!(reply.questions().len(), 1);
    reply
}

fn answer(nonce: &str) -> Value {
    json!({ "elicitation-1": { "action": "accept", "content": { "nonce": nonce } } })
}

/// Checks that a call ends with exactly this answer.
#[track_caller]
fn assert_answered(reply: &Reply, nonce: &str) {
    let answers = reply.json()["answers"].clone();
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{answers}");
    assert_eq!(answers[0]["result"]["content"]["nonce"], nonce);
}

/// A retry with another state.
async fn retry_with(client: &ModernClient, asked: &Reply, state: Value) -> Reply {
    let mut retry = client.retry_message(asked, answer("forged"));
    retry["params"]["requestState"] = state;
    client.send(retry).await.unwrap()
}

/// Checks an error that tells nothing, and returns it without its id.
#[track_caller]
fn assert_invalid(reply: &Reply) -> Value {
    assert_eq!(reply.error(), INVALID, "{reply}");
    reply.response()["error"].clone()
}

#[tokio::test]
async fn changed_request_states_are_equally_invalid() {
    let harness = Harness::new(&[]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let asked = ask(&alice, "sure?").await;
    let state = asked.result()["requestState"].as_str().unwrap().to_owned();
    assert!(state.len() < 512, "{state}");
    let mut changed: Vec<Value> = vec![
        json!(""),
        json!("x"),
        json!(format!("{state}A")),
        json!(format!("{state}\u{e9}")),
        json!(state[..state.len() - 1]),
        json!(state.to_lowercase()),
        json!("A".repeat(state.len())),
        json!("A".repeat(100_000)),
        json!(7),
        json!({}),
        json!([state]),
        Value::Null,
    ];
    // One character each, in the whole length.
    changed.extend((0..state.len() - 1).step_by(5).map(|at| {
        let other = if &state[at..=at] == "A" { "B" } else { "A" };
        json!(format!("{}{other}{}", &state[..at], &state[at + 1..]))
    }));
    let mut errors = Vec::new();
    for state in changed {
        let reply = retry_with(&alice, &asked, state).await;
        errors.push(assert_invalid(&reply));
    }
    errors.dedup();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_answered(&alice.retry(&asked, answer("yes")).await.unwrap(), "yes");
}

#[tokio::test]
async fn request_state_is_of_no_use_to_others() {
    let harness = Harness::new(&[]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let others = [
        harness.signed_in("bob").await,
        harness.other_client("alice").await,
        harness.other_client("bob").await,
    ];
    let asked = ask(&alice, "sure?").await;
    for other in &others {
        let other = with_forms(other);
        // Before and while it has a server of its own.
        for _ in 0..2 {
            let reply = other.retry(&asked, answer("forged")).await.unwrap();
            assert_eq!(assert_invalid(&reply).get("data"), None);
            let own = ask(&other, "mine?").await;
            assert_answered(&other.retry(&own, answer("own")).await.unwrap(), "own");
        }
    }
    assert_answered(&alice.retry(&asked, answer("yes")).await.unwrap(), "yes");
}

#[tokio::test]
async fn request_state_is_bound_to_its_request() {
    let harness = Harness::new(&[]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let asked = ask(&alice, "delete repo A?").await;
    let other = ask(&alice, "delete repo B?").await;
    let tool_calls = harness.broker.log().count("tool call tool=");
    let retry = alice.retry_message(&asked, answer("forged"));
    for (pointer, value) in [
        ("/params/name", json!("test_echo")),
        (
            "/params/arguments",
            json!({ "id": "delete repo B?", "question": "delete repo B?" }),
        ),
        ("/params/arguments", Value::Null),
        ("/params/arguments/extra", json!(1)),
        ("/params/arguments/question", json!("delete repo A!")),
        ("/params/requestState", other.result()["requestState"].clone()),
    ] {
        let mut changed = retry.clone();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = value;
        assert_invalid(&alice.send(changed).await.unwrap());
    }
    let prompt = json!({ "name": "test_ask", "requestState": asked.result()["requestState"] });
    assert_invalid(&alice.request("prompts/get", prompt).await.unwrap());
    let reached = harness.broker.log().count("tool call tool=");
    assert_eq!(reached, tool_calls, "nothing reaches the child");
    assert_answered(&alice.retry(&asked, answer("A")).await.unwrap(), "A");
    assert_answered(&alice.retry(&other, answer("B")).await.unwrap(), "B");
}

#[tokio::test]
async fn replayed_request_state_gets_the_outcome_of_equal_answers_only() {
    let harness = Harness::new(&[]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let asked = ask(&alice, "sure?").await;
    // Two at once: both get the outcome of one.
    let (first, second) = tokio::join!(alice.retry(&asked, answer("yes")), alice.retry(&asked, answer("yes")));
    assert_answered(&first.unwrap(), "yes");
    assert_answered(&second.unwrap(), "yes");
    let again = alice.retry(&asked, answer("yes")).await.unwrap();
    assert_answered(&again, "yes");
    for answers in [
        answer("no"),
        json!({}),
        json!({ "elicitation-1": { "action": "decline" } }),
    ] {
        let reply = alice.retry(&asked, answers).await.unwrap();
        let error = assert_invalid(&reply);
        assert!(
            ["spent", "lost"].contains(&error["data"]["reason"].as_str().unwrap_or_default()),
            "{error}"
        );
    }
    assert_eq!(
        harness.broker.log().count("tool call tool=test_ask"),
        1,
        "the tool ran once"
    );
    // The state of a round that has been answered in part.
    let asked = ask(&alice, "sure now?").await;
    let next = alice.retry(&asked, json!({ "other": {} })).await.unwrap();
    assert_eq!(next.questions().len(), 1);
    let spent = alice.retry(&asked, answer("late")).await.unwrap();
    assert_eq!((spent.error(), spent.data()), (INVALID, &json!({ "reason": "spent" })));
    assert_answered(&alice.retry(&next, answer("yes")).await.unwrap(), "yes");
}

#[tokio::test]
async fn expired_request_state_is_invalid_and_its_call_is_cancelled() {
    let harness = Harness::new(&[("session.input_timeout", "5s")]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let asked = ask(&alice, "sure?").await;
    harness.broker.log().contains("got notifications/cancelled").await;
    assert_invalid(&alice.retry(&asked, answer("late")).await.unwrap());
    let next = ask(&alice, "again?").await;
    assert_answered(&alice.retry(&next, answer("yes")).await.unwrap(), "yes");
}

#[tokio::test]
async fn malformed_answers_start_nothing() {
    let harness = Harness::new(&[]).await;
    let alice = with_forms(&harness.signed_in("alice").await);
    let asked = ask(&alice, "sure?").await;
    for answers in [
        json!([]),
        json!("x"),
        json!(7),
        json!({ "elicitation-1": [] }),
        json!({ "a": null }),
    ] {
        assert_invalid(&alice.retry(&asked, answers.clone()).await.unwrap());
        let params = json!({ "name": "test_echo", "inputResponses": answers });
        assert_invalid(&alice.request("tools/call", params).await.unwrap());
    }
    assert_eq!(harness.broker.log().count("tool call tool="), 1);
    assert_answered(&alice.retry(&asked, answer("yes")).await.unwrap(), "yes");
}
