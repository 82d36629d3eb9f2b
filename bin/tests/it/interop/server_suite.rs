//! The official conformance suite in its role of an MCP client, against the running broker.
//!
//! The suite sends no `Authorization`. A forwarder stands in front of the broker, as an operator's
//! reverse proxy would, and adds the bearer of a user who signed in through it. Host and Origin pass
//! unchanged, so that the suite's DNS rebinding attack reaches the broker. The broker starts a stdio
//! server with the fixtures that the suite asks for ([`testkit::conformance`]).
//!
//! The test is stricter than the suite: a scenario that the suite runs without scoring has to pass,
//! and a warning or a skipped check is a failure. `interop/conformance/baseline.yml` lists the
//! scenarios that are expected to fail, and the suite refuses an entry that does not fail.

use std::{
    fmt,
    fs::{self, File},
    path::Path,
    process::{Command, ExitStatus},
};

use serde_json::{Value, json};
use testkit::{
    Browser, Client, FakeForgejo, Forwarder,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, public_url, redirect_uri},
    forgejo::Options,
};

use super::{authorization_suite::node, sdk_client::root};
use crate::harness::password;

/// The revision whose requirements have to be met.
const REVISION: &str = "2025-11-25";

/// The number of scenarios that the pinned suite runs for a server of that revision: 30 required and
/// three more (`server-session-lifecycle`, `server-sse-polling`, `json-schema-2020-12`).
const SCENARIOS: usize = 33;

/// The tool whose answer the forwarder cuts; the suite has to resume its stream.
const RECONNECTION: &str = "test_reconnection";

/// The user who signs in.
const LOGIN: &str = "alice";

/// The suite's checks of one scenario.
struct Scenario {
    name: String,
    passed: usize,
    /// The checks that did not pass, with the suite's messages.
    failures: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node: cargo xtask interop"]
async fn official_suite_finds_no_failure_in_the_mcp_server() {
    let results = root().join("target/conformance");
    if results.exists() {
        fs::remove_dir_all(&results).unwrap();
    }
    fs::create_dir_all(&results).unwrap();
    let status = run_suite(&results).await;
    let scenarios = read(&results);
    for scenario in &scenarios {
        println!("{scenario}");
    }
    let log = results.join("suite.log");
    let failed: Vec<&str> = scenarios
        .iter()
        .filter(|one| !one.holds())
        .map(|one| one.name.as_str())
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}; see {}", log.display());
    assert_eq!(scenarios.len(), SCENARIOS, "see {}", log.display());
    assert!(status.success(), "the suite ended with {status}; see {}", log.display());
}

/// Starts the broker and everything around it, runs the suite, and stops everything.
async fn run_suite(results: &Path) -> ExitStatus {
    let (port, front) = (free_port(), free_port());
    let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(front)))
        .await
        .unwrap();
    // Most scenarios leave their session open.
    let settings = [
        ("server.public_url", public_url(front)),
        ("session.max_sessions_per_user", "200".to_owned()),
    ];
    let options = BrokerOptions {
        port,
        child: Some(ChildCommand::plain(&programs().conformance_mcp)),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        environment: vec![],
        keep_socket: false,
    };
    let forwarder = Forwarder::start(front, port, Some(RECONNECTION)).await.unwrap();
    let mut broker = BrokerProcess::start(&programs().broker, &forgejo, options)
        .await
        .unwrap();
    let client = Client::new(forwarder.mcp_url().parse().unwrap());
    client
        .sign_in(&mut Browser::new(), LOGIN, &password(LOGIN))
        .await
        .unwrap();
    forwarder.set_bearer(&client.access_token().expect("signing in yields a token"));

    let mut suite = suite(&forwarder.mcp_url(), results);
    let status = tokio::task::spawn_blocking(move || suite.status()).await.unwrap();
    fs::write(results.join("broker.log"), broker.log().text()).unwrap();
    assert!(
        forwarder.cuts() > 0 && forwarder.resumptions() > 0,
        "no stream was cut and resumed"
    );
    let ended = broker.terminate().await.unwrap();
    forgejo.stop().await;
    assert!(ended.success(), "the broker ended with {ended}");
    status.expect("cargo xtask interop installs the suite")
}

fn suite(url: &str, results: &Path) -> Command {
    let folder = root().join("interop/conformance");
    let mut command = Command::new(node(&folder));
    command
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", REVISION])
        .arg("--expected-failures")
        .arg(folder.join("baseline.yml"))
        .arg("--output-dir")
        .arg(results)
        .current_dir(root())
        .stdout(File::create(results.join("suite.log")).unwrap());
    command
}

/// Reads the folder of each scenario: `server-NAME-TIME`, with the checks in `checks.json`.
fn read(results: &Path) -> Vec<Scenario> {
    let folders = fs::read_dir(results).unwrap().map(|entry| entry.unwrap().path());
    let mut scenarios: Vec<Scenario> = folders
        .filter(|folder| folder.join("checks.json").exists())
        .map(|folder| {
            let checks: Vec<Value> = serde_json::from_slice(&fs::read(folder.join("checks.json")).unwrap()).unwrap();
            scenario(scenario_name(&folder.file_name().unwrap().to_string_lossy()), &checks)
        })
        .collect();
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    scenarios
}

/// The scenario that a folder is named after.
fn scenario_name(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    // A hyphen and a time such as 2026-07-28T12-00-00-000Z.
    name.len()
        .checked_sub(25)
        .map_or(name, |end| name.get(..end).unwrap_or(name))
}

impl Scenario {
    /// A scenario without a single passed check shows nothing.
    fn holds(&self) -> bool {
        self.failures.is_empty() && self.passed > 0
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.holds() { "ok  " } else { "FAIL" };
        write!(f, "{sign} {} ({} checks passed)", self.name, self.passed)?;
        self.failures
            .iter()
            .try_for_each(|failure| write!(f, "\n     {failure}"))
    }
}

fn scenario(name: &str, checks: &[Value]) -> Scenario {
    let mut scenario = Scenario {
        name: name.to_owned(),
        passed: 0,
        failures: Vec::new(),
    };
    for check in checks {
        match check["status"].as_str() {
            Some("SUCCESS") => scenario.passed += 1,
            Some("INFO") => {}
            status => {
                let status = status.unwrap_or("no status");
                let text = |key: &str| check[key].as_str().unwrap_or_default();
                scenario
                    .failures
                    .push(format!("{} ({status}): {}", text("id"), text("errorMessage")));
            }
        }
    }
    scenario
}

#[test]
fn a_folder_is_named_after_its_scenario() {
    assert_eq!(
        scenario_name("server-server-sse-polling-2026-07-28T12-00-00-000Z"),
        "server-sse-polling"
    );
    assert_eq!(scenario_name("server-x"), "x");
}

#[test]
fn every_status_but_success_and_information_is_a_failure() {
    let checks = ["SUCCESS", "INFO", "WARNING", "SKIPPED", "FAILURE"]
        .map(|status| json!({ "id": status, "status": status, "errorMessage": "why" }));
    let scenario = scenario("x", &checks);
    assert_eq!(scenario.passed, 1);
    assert_eq!(
        scenario.failures,
        [
            "WARNING (WARNING): why",
            "SKIPPED (SKIPPED): why",
            "FAILURE (FAILURE): why"
        ]
    );
}
