//! The official conformance suite as a client of the authorization server: it prints an
//! authorization URL, waits for the redirect, and checks the responses.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};
use testkit::{Browser, broker::free_port};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use super::sdk_client::{RUN_TIMEOUT, root};
use crate::harness::{Harness, password};

/// The checks that the suite must make.
const CHECKS: [&str; 3] = [
    "authorization-server-metadata",
    "authorization-server-metadata-cimd",
    "authorization-code-grant",
];

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn official_suite_finds_no_failure_in_the_authorization_server() {
    let harness = Harness::new(&[]).await;
    let port = free_port();
    let redirect_uri = format!("http://127.0.0.1:{port}/callback");
    let client_id = register(&harness, &redirect_uri).await;
    let results = tempfile::tempdir().unwrap();
    let folder = root().join("interop/conformance");
    let mut process = Command::new(node(&folder))
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args([
            "authorization",
            "--url",
            &harness.broker.url(),
            "--client-id",
            &client_id,
        ])
        .args(["--resource", &harness.broker.mcp_url(), "--port", &port.to_string()])
        .arg("--output-dir")
        .arg(results.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo xtask interop installs the suite");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let authorizations = async {
        let mut count = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with(&harness.broker.url()) && line.contains("response_type=code") {
                let mut browser = Browser::new();
                let redirect = browser
                    .authorize(
                        &line.trim().parse().unwrap(),
                        "alice",
                        &password("alice"),
                        &redirect_uri,
                    )
                    .await
                    .unwrap();
                // The suite listens at the redirect URI.
                browser.get(&redirect).await.unwrap();
                count += 1;
            }
        }
        count
    };
    let authorizations = timeout(RUN_TIMEOUT, authorizations).await;
    assert_eq!(authorizations.expect("the suite does not end"), 1);
    let exited = timeout(RUN_TIMEOUT, process.wait()).await;
    assert!(exited.expect("the suite does not exit").unwrap().success());
    let checks = checks(results.path());
    for required in CHECKS {
        assert!(
            checks.iter().any(|check| check["id"] == required),
            "{required} was not checked: {checks:?}"
        );
    }
    for check in &checks {
        assert!(
            ["SUCCESS", "INFO"].contains(&check["status"].as_str().unwrap()),
            "{check}"
        );
    }
}

/// Registers the suite as a public client and returns its id.
async fn register(harness: &Harness, redirect_uri: &str) -> String {
    let metadata = json!({
        "client_name": "conformance suite",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let response = testkit::http_client::client(RUN_TIMEOUT)
        .post(format!("{}/oauth/register", harness.broker.url()))
        .header("content-type", "application/json")
        .body(metadata.to_string())
        .send()
        .await
        .unwrap();
    let registration: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    registration["client_id"].as_str().unwrap().to_owned()
}

/// The checks in all folders of the results.
fn checks(results: &Path) -> Vec<Value> {
    let folders = fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path());
    let files = folders
        .map(|folder| folder.join("checks.json"))
        .filter(|file| file.exists());
    files
        .flat_map(|file| serde_json::from_slice::<Vec<Value>>(&fs::read(file).unwrap()).unwrap())
        .collect()
}

/// The Node that is installed with the suite, which requires version 22 or later. On platforms
/// without it: the Node in the path.
pub(super) fn node(folder: &Path) -> std::path::PathBuf {
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let installed = folder.join(format!("node_modules/node-{}-{arch}/bin/node", std::env::consts::OS));
    if installed.exists() { installed } else { "node".into() }
}
