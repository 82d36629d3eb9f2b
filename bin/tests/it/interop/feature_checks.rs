//! Each official SDK checks all features that involve both a server and its client, through the
//! broker: notifications during a call, requests of the server to the client, subscriptions,
//! cancellation, and the resumption of a broken stream.

use serde_json::{Value, json};
use testkit::broker::{ChildCommand, programs};

use super::sdk_client::{Run, Sdk};
use crate::harness::Harness;

/// The tool whose answer the forwarder cuts off.
const RECONNECTION: &str = "test_reconnection";

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn all_features_work_with_typescript_v1() {
    check_features(Sdk::TypescriptV1).await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn all_features_work_with_typescript_v2() {
    check_features(Sdk::TypescriptV2).await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn all_features_work_with_python() {
    check_features(Sdk::Python).await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn all_features_work_with_rust() {
    check_features(Sdk::Rust).await;
}

async fn check_features(sdk: Sdk) {
    let child = ChildCommand::plain(&programs().conformance_mcp);
    let (_harness, forwarder) = Harness::behind_forwarder(child, RECONNECTION).await;
    let run = Run::feature_checks(sdk, &forwarder.mcp_url(), "alice").finish().await;
    assert_features(&run.features, &expected());
    assert_eq!(forwarder.cuts(), 1, "no stream was cut");
    assert!(forwarder.resumptions() > 0, "no stream was resumed");
}

/// Compares the checks of a client with the expected ones.
pub(super) fn assert_features(features: &[(String, Value)], expected: &[(&'static str, Value)]) {
    for ((name, result), (expected_name, expected)) in features.iter().zip(expected) {
        assert_eq!((name.as_str(), result), (*expected_name, expected));
    }
    assert_eq!(features.len(), expected.len());
}

/// The checks and their expected results. The last one needs a session.
pub(super) fn expected() -> [(&'static str, Value); 10] {
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
        // At the level `error` there is no further message.
        ("list_changed", json!(3)),
        ("sampling", json!("LLM response: sampled: hello")),
        (
            "elicitation",
            json!(r#"User response: action=accept, content={"email":"ada@example.org","username":"ada"}"#),
        ),
        ("roots", json!("file:///one file:///two")),
        ("rounds", json!("ada likes blue")),
        // One update, and none after the end of the subscription.
        ("subscription", json!(["test://watched-resource", "no subscription"])),
        ("cancellation", json!("mine")),
        ("resumption", json!("Reconnection test completed successfully")),
    ]
}
