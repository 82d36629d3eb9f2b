//! The official clients without sessions: the protocol of 2026-07-28, behind which the same server
//! speaks the older one. Each signs in and makes the feature checks, again after its user's session
//! has got another child, and again after a restart of the broker.

use serde_json::json;
use testkit::broker::{ChildCommand, programs};
use tokio::time::timeout;

use super::{
    feature_checks::{assert_features, expected},
    interruptions::rotate,
    sdk_client::{ClientProcess, Event, RUN_TIMEOUT, Run, Sdk},
};
use crate::harness::Harness;

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_finds_the_protocol_without_sessions() {
    check_features(Sdk::TypescriptV2, "auto").await;
}

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn typescript_demands_the_protocol_without_sessions() {
    check_features(Sdk::TypescriptV2, "pin").await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn python_finds_the_protocol_without_sessions() {
    check_features(Sdk::Python, "auto").await;
}

#[tokio::test]
#[ignore = "needs Python: cargo xtask interop"]
async fn fastmcp_finds_the_protocol_without_sessions() {
    check_features(Sdk::Python, "fastmcp").await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn rust_finds_the_protocol_without_sessions() {
    check_features(Sdk::Rust, "auto").await;
}

#[tokio::test]
#[ignore = "needs a program of its own: cargo xtask interop"]
async fn rust_demands_the_protocol_without_sessions() {
    check_features(Sdk::Rust, "discover").await;
}

async fn check_features(sdk: Sdk, era: &str) {
    let child = ChildCommand::plain(&programs().conformance_mcp);
    let mut harness = Harness::with_child(child, &[]).await;
    let run = Run::feature_checks(sdk, &harness.broker.mcp_url(), "alice").stateless(era);
    let mut client = run.interactive().spawn();
    assert_round(&mut client).await;

    let replaced = rotate(&harness, "alice").await;
    assert_eq!(replaced.len(), 1, "one child serves the client");
    client.send(&json!({ "call": true })).await;
    assert_round(&mut client).await;

    harness.restart().await;
    client.send(&json!({ "call": true })).await;
    assert_round(&mut client).await;

    client.send(&json!({ "end": true })).await;
    let done = client.collect_until(|event| matches!(event, Event::Done));
    timeout(RUN_TIMEOUT, done).await.expect("the client ends");
    assert!(client.exited().await.success());
}

/// Waits for the end of a round of checks. Without a session no broken stream can be resumed.
async fn assert_round(client: &mut ClientProcess) {
    let round = client.collect_until(|event| matches!(event, Event::Ready));
    let round = timeout(RUN_TIMEOUT, round).await.expect("the checks end");
    let expected = expected();
    assert_features(&round.features, &expected[..expected.len() - 1]);
}
