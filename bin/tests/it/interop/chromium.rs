//! The pages in a real browser: headless Chromium, driven by `interop/tools/browser-scenarios.mjs`.
//!
//! The script writes screenshots to `target/screenshots`. `docs/screenshots` has copies that a
//! person has reviewed.

use std::{fs, process::Stdio};

use serde_json::json;
use testkit::{Host, broker::free_port, host::network};
use tokio::{process::Command, time::timeout};

use super::sdk_client::{RUN_TIMEOUT, root};
use crate::harness::{Harness, password, sign_in};

/// A client with a metadata document.
const DOCUMENT_CLIENT_ID: &str = "https://client.example/client.json";

/// The number of scenarios in the script.
const SCENARIOS: usize = 13;

#[tokio::test]
#[ignore = "needs Node and Chromium: cargo xtask interop"]
async fn pages_work_in_a_real_browser() {
    let host = Host::start().await.unwrap();
    let harness = Harness::with_environment(vec![network(&[("client.example", &host)], &[])], &[]).await;
    let port = free_port();
    let redirect_uri = format!("http://127.0.0.1:{port}/callback");
    let document = json!({
        "client_id": DOCUMENT_CLIENT_ID, "client_name": "A described client", "redirect_uris": [redirect_uri],
    });
    host.json("/client.json", &document);
    let client = harness.client().with_redirect_uri(&redirect_uri);
    sign_in(&client, "bob").await;
    let screenshots = root().join("target/screenshots");
    fs::create_dir_all(&screenshots).unwrap();
    let run = Command::new("node")
        .arg(root().join("interop/tools/browser-scenarios.mjs"))
        .env("BROKER", harness.broker.url())
        .env("MCP_URL", harness.broker.mcp_url())
        .env("CLIENT_ID", client.client_id().unwrap())
        .env("DOCUMENT_CLIENT_ID", DOCUMENT_CLIENT_ID)
        .env("PORT", port.to_string())
        .env("LOGIN", "alice")
        .env("PASSWORD", password("alice"))
        .env("SCREENSHOTS", &screenshots)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(RUN_TIMEOUT, run)
        .await
        .expect("the scenarios do not end")
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}{stderr}");
    let passed = stdout.lines().filter(|line| line.starts_with("ok ")).count();
    assert_eq!(passed, SCENARIOS, "{stdout}");
}
