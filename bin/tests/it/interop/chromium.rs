//! The pages in a real browser: headless Chromium, driven by `interop/tools/browse.mjs`.
//!
//! The screenshots that it takes lie in `target/screenshots`; those in `docs/screenshots` are copies that somebody has
//! looked at.

use std::{fs, process::Stdio};

use serde_json::json;
use testkit::{Browser, Host, broker::free_port, host::network};
use tokio::{process::Command, time::timeout};

use super::sdk_client::{LIMIT, root};
use crate::harness::{Harness, password};

/// The client that a domain describes.
const DESCRIBED: &str = "https://client.example/client.json";

/// How many walks the script knows.
const WALKS: usize = 13;

#[tokio::test]
#[ignore = "needs Node and Chromium: cargo xtask interop"]
async fn people_get_through_the_pages_by_clicks() {
    let host = Host::start().await.unwrap();
    let harness = Harness::with_environment(vec![network(&[("client.example", &host)], &[])], &[]).await;
    let port = free_port();
    let redirect_uri = format!("http://127.0.0.1:{port}/callback");
    let document =
        json!({ "client_id": DESCRIBED, "client_name": "A described client", "redirect_uris": [redirect_uri] });
    host.json("/client.json", &document);
    let client = harness.client().with_redirect_uri(&redirect_uri);
    client
        .sign_in(&mut Browser::new(), "bob", &password("bob"))
        .await
        .unwrap();
    let screenshots = root().join("target/screenshots");
    fs::create_dir_all(&screenshots).unwrap();
    let run = Command::new("node")
        .arg(root().join("interop/tools/browse.mjs"))
        .env("BROKER", harness.broker.url())
        .env("MCP_URL", harness.broker.mcp_url())
        .env("CLIENT_ID", client.client_id().unwrap())
        .env("DESCRIBED", DESCRIBED)
        .env("PORT", port.to_string())
        .env("LOGIN", "alice")
        .env("PASSWORD", password("alice"))
        .env("SCREENSHOTS", &screenshots)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, run).await.expect("the walks come to an end").unwrap();
    let (said, complaints) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{said}{complaints}");
    assert_eq!(
        said.lines().filter(|line| line.starts_with("ok ")).count(),
        WALKS,
        "{said}"
    );
}
