//! The pages in a real browser: headless Chromium, driven by `interop/tools/browse.mjs`.
//!
//! The screenshots that it takes lie in `target/screenshots`; those in `docs/screenshots` are copies that somebody has
//! looked at.

use std::{fs, process::Stdio};

use testkit::{Browser, broker::free_port};
use tokio::{process::Command, time::timeout};

use super::sdk::{LIMIT, root};
use crate::bed::{Bed, password};

/// How many walks the script knows.
const WALKS: usize = 12;

#[tokio::test]
#[ignore = "needs Node and Chromium: cargo xtask interop"]
async fn people_get_through_the_pages_by_clicks() {
    let bed = Bed::new(&[]).await;
    let port = free_port();
    let client = bed
        .client()
        .with_redirect_uri(&format!("http://127.0.0.1:{port}/callback"));
    client
        .sign_in(&mut Browser::new(), "bob", &password("bob"))
        .await
        .unwrap();
    let screenshots = root().join("target/screenshots");
    fs::create_dir_all(&screenshots).unwrap();
    let run = Command::new("node")
        .arg(root().join("interop/tools/browse.mjs"))
        .env("BROKER", bed.broker.url())
        .env("MCP_URL", bed.broker.mcp_url())
        .env("CLIENT_ID", client.client_id().unwrap())
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
