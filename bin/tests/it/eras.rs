//! Clients of 2026-07-28 in front of servers of 2025-11-25: each feature of the translation.

mod listening;
mod questions;
mod requests;
mod sessions;
mod tasks;

use serde_json::{Value, json};
use testkit::client::{ModernClient, Reply};

use crate::harness::{Harness, conformance_mcp};

/// A harness with the conformance server, which has every feature, and a client with every
/// capability.
async fn with_every_feature(settings: &[(&str, &str)]) -> (Harness, ModernClient) {
    let harness = Harness::with_child(conformance_mcp(), settings).await;
    let alice = harness.signed_in("alice").await.modern();
    let capabilities = json!({ "elicitation": {}, "sampling": {}, "roots": {} });
    (harness, alice.with_capabilities(capabilities))
}

/// A harness with the double of `forgejo-mcp`, and a client that answers forms.
async fn with_forms(settings: &[(&str, &str)]) -> (Harness, ModernClient) {
    let harness = Harness::new(settings).await;
    let alice = harness.signed_in("alice").await.modern();
    (harness, alice.with_capabilities(json!({ "elicitation": {} })))
}

/// The process that serves the requests of a client.
async fn child_of(client: &ModernClient) -> Value {
    let reply = client.call_tool("test_write", json!({})).await.unwrap();
    reply.json()["pid"].clone()
}

/// A call of `test_ask` that waits for its answer.
async fn ask(client: &ModernClient, question: &str) -> Reply {
    let arguments = json!({ "id": question, "question": question });
    let reply = client.call_tool("test_ask", arguments).await.unwrap();
    let questions = reply.questions();
    assert_eq!(
        questions["elicitation-1"]["params"]["message"], question,
        "{questions:?}"
    );
    reply
}

/// The answer to the question of [`ask`].
fn yes(nonce: &str) -> Value {
    json!({ "elicitation-1": { "action": "accept", "content": { "nonce": nonce } } })
}

/// The nonce that the tool of [`ask`] has got, and its process.
#[track_caller]
fn answered(reply: &Reply) -> (Value, Value) {
    let json = reply.json();
    let answers = &json["answers"];
    assert_eq!(answers.as_array().map(Vec::len), Some(1), "{json}");
    (answers[0]["result"]["content"]["nonce"].clone(), json["pid"].clone())
}
