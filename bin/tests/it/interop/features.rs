//! Each official SDK takes a tour of all that a server and its client can do with each other, through the broker: what is
//! told while a call runs, what the server asks the client, what it says on its own account, and what becomes of a
//! call whose stream breaks.

use serde_json::{Value, json};
use testkit::broker::{ChildCommand, programs};

use super::sdk_client::{Run, Sdk};
use crate::harness::Harness;

/// The tool whose answer loses its connection on the way.
const RECONNECTION: &str = "test_reconnection";

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v1_reaches_every_feature() {
    reaches_every_feature(Sdk::TypescriptV1).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_v2_reaches_every_feature() {
    reaches_every_feature(Sdk::TypescriptV2).await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn python_reaches_every_feature() {
    reaches_every_feature(Sdk::Python).await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn rust_reaches_every_feature() {
    reaches_every_feature(Sdk::Rust).await;
}

async fn reaches_every_feature(sdk: Sdk) {
    let child = ChildCommand::plain(&programs().conformance_mcp);
    let (_bed, forwarder) = Harness::behind_forwarder(child, RECONNECTION).await;
    let outcome = Run::tour(sdk, &forwarder.mcp_url(), "alice").finish().await;
    for ((name, result), (expected_name, expected)) in outcome.features.iter().zip(expected()) {
        assert_eq!((name.as_str(), result), (expected_name, &expected));
    }
    assert_eq!(outcome.features.len(), expected().len());
    assert_eq!(forwarder.cuts(), 1, "the stream was cut");
    assert!(forwarder.resumptions() > 0, "the stream was resumed");
}

/// The stops of the tour, with what has to come of them.
fn expected() -> [(&'static str, Value); 9] {
    [
        ("progress", json!([0, 50, 100])),
        (
            "logging",
            json!([
                "Tool execution started",
                "Tool processing data",
                "Tool execution completed"
            ]),
        ),
        // No further message at the level `error`.
        ("list_changed", json!(3)),
        ("sampling", json!("LLM response: sampled: hello")),
        (
            "elicitation",
            json!(r#"User response: action=accept, content={"email":"ada@example.org","username":"ada"}"#),
        ),
        ("roots", json!("file:///one file:///two")),
        // One update, and none after the end of the subscription.
        ("subscription", json!(["test://watched-resource", "no subscription"])),
        ("cancellation", json!("mine")),
        ("resumption", json!("Reconnection test completed successfully")),
    ]
}
