//! The official conformance suite in its role of a client of an authorization server: it prints the address that a person
//! has to visit, waits for the browser to come back, and judges what it got.

use std::{fs, path::Path, process::Stdio};

use serde_json::{Value, json};
use testkit::{Browser, broker::free_port};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use super::sdk_client::{LIMIT, root};
use crate::harness::{Harness, password};

/// What the suite checks of an authorization server.
const CHECKS: [&str; 3] = [
    "authorization-server-metadata",
    "authorization-server-metadata-cimd",
    "authorization-code-grant",
];

#[tokio::test]
#[ignore = "needs Node: cargo xtask interop"]
async fn the_official_suite_finds_no_fault_in_the_authorization_server() {
    let harness = Harness::new(&[]).await;
    let port = free_port();
    let client = register(&harness, &format!("http://127.0.0.1:{port}/callback")).await;
    let results = tempfile::tempdir().unwrap();
    let folder = root().join("interop/conformance");
    let mut process = Command::new(node(&folder))
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(["authorization", "--url", &harness.broker.url(), "--client-id", &client])
        .args(["--resource", &harness.broker.mcp_url(), "--port", &port.to_string()])
        .arg("--output-dir")
        .arg(results.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cargo xtask interop installs the suite");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let walk = async {
        let mut visits = 0;
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with(&harness.broker.url()) && line.contains("response_type=code") {
                let mut browser = Browser::new();
                let back = format!("http://127.0.0.1:{port}/callback");
                let back = browser
                    .authorize(&line.trim().parse().unwrap(), "alice", &password("alice"), &back)
                    .await
                    .unwrap();
                // This time somebody listens there.
                browser.get(&back).await.unwrap();
                visits += 1;
            }
        }
        visits
    };
    assert_eq!(timeout(LIMIT, walk).await.expect("the suite comes to an end"), 1);
    let ended = timeout(LIMIT, process.wait()).await.expect("the suite comes to an end");
    assert!(ended.unwrap().success());
    let checks = checks(results.path());
    for wanted in CHECKS {
        assert!(
            checks.iter().any(|check| check["id"] == wanted),
            "{wanted} was not checked: {checks:?}"
        );
    }
    for check in &checks {
        assert!(
            ["SUCCESS", "INFO"].contains(&check["status"].as_str().unwrap()),
            "{check}"
        );
    }
}

/// Registers the suite as a public client and gives its id.
async fn register(harness: &Harness, redirect_uri: &str) -> String {
    let metadata = json!({
        "client_name": "conformance suite",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let answer = testkit::http_client::client(LIMIT)
        .post(format!("{}/oauth/register", harness.broker.url()))
        .header("content-type", "application/json")
        .body(metadata.to_string())
        .send()
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    answer["client_id"].as_str().unwrap().to_owned()
}

/// All checks, whatever the folders below the results are called.
fn checks(results: &Path) -> Vec<Value> {
    let folders = fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path());
    let files = folders
        .map(|folder| folder.join("checks.json"))
        .filter(|file| file.exists());
    files
        .flat_map(|file| serde_json::from_slice::<Vec<Value>>(&fs::read(file).unwrap()).unwrap())
        .collect()
}

/// The Node that is installed with the suite, which wants 22 or later; on other machines the one in the path.
pub(super) fn node(folder: &Path) -> std::path::PathBuf {
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let installed = folder.join(format!("node_modules/node-{}-{arch}/bin/node", std::env::consts::OS));
    if installed.exists() { installed } else { "node".into() }
}
