//! The official conformance suite as an MCP client of the running broker.
//!
//! The suite sends no `Authorization`. A forwarder in front of the broker, like an operator's
//! reverse proxy, adds the bearer token of a user who has signed in through it. It does not change
//! Host and Origin, so that the suite's DNS rebinding attack reaches the broker. The broker starts
//! a stdio server with the fixtures that the suite needs ([`testkit::conformance`]).
//!
//! The broker must meet two revisions of the protocol, with the same server behind it, which speaks
//! the older one.
//!
//! The test is stricter than the suite: a scenario that the suite does not score must pass too (an
//! extension, or one that is pending), and a warning or a skipped check is a failure.
//! `interop/conformance/baseline.yml` lists the scenarios that are expected to fail, and the suite
//! rejects an entry that does not fail.

use std::{
    fmt,
    fs::{self, File},
    path::Path,
    process::{Command, ExitStatus},
};

use serde_json::{Value, json};
use testkit::{
    Client, FakeForgejo, Forwarder,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, public_url, redirect_uri},
    forgejo::Options,
};

use super::{authorization_suite::node, sdk_client::root};
use crate::harness::sign_in;

/// A protocol revision whose requirements the broker must meet.
struct Revision {
    name: &'static str,
    /// The number of scenarios that the pinned suite runs for a server of that revision.
    scenarios: usize,
    /// The tool whose answer the forwarder cuts off; the suite must resume its stream.
    cut: Option<&'static str>,
}

/// 30 required scenarios, `server-session-lifecycle`, `server-sse-polling` and
/// `json-schema-2020-12`.
const SESSIONS: Revision = Revision {
    name: "2025-11-25",
    scenarios: 33,
    cut: Some("test_reconnection"),
};

/// 37 required scenarios, 10 of the tasks extension, and 3 pending ones. This revision has no
/// resumption.
const STATELESS: Revision = Revision {
    name: "2026-07-28",
    scenarios: 50,
    cut: None,
};

/// The scenario of the pinned suite that has one check, which is always skipped.
const EMPTY_SCENARIO: &str = "tasks-status-notifications";

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
async fn official_suite_finds_no_failure_with_sessions() {
    finds_no_failure(&SESSIONS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Node: cargo xtask interop"]
async fn official_suite_finds_no_failure_without_sessions() {
    finds_no_failure(&STATELESS).await;
}

async fn finds_no_failure(revision: &Revision) {
    let results = root().join("target/conformance").join(revision.name);
    if results.exists() {
        fs::remove_dir_all(&results).unwrap();
    }
    fs::create_dir_all(&results).unwrap();
    let status = run_suite(revision, &results).await;
    let scenarios = read(&results);
    for scenario in &scenarios {
        println!("{scenario}");
    }
    let log = results.join("suite.log");
    let failed: Vec<&str> = scenarios
        .iter()
        .filter(|scenario| !scenario.passes())
        .map(|scenario| scenario.name.as_str())
        .collect();
    assert!(failed.is_empty(), "failed: {failed:?}; see {}", log.display());
    assert_eq!(scenarios.len(), revision.scenarios, "see {}", log.display());
    assert!(status.success(), "the suite ended with {status}; see {}", log.display());
}

/// Starts a Forgejo, the forwarder and the broker, runs the suite, and stops them.
async fn run_suite(revision: &Revision, results: &Path) -> ExitStatus {
    let (port, public_port) = (free_port(), free_port());
    let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(public_port)))
        .await
        .unwrap();
    // Most scenarios do not close their session.
    let settings = [
        ("server.public_url", public_url(public_port)),
        ("session.max_sessions_per_user", "200".to_owned()),
    ];
    let options = BrokerOptions {
        port,
        child: Some(ChildCommand::plain(&programs().conformance_mcp)),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        environment: vec![],
        keep_socket: false,
    };
    let forwarder = Forwarder::start(public_port, port, revision.cut).await.unwrap();
    let mut broker = BrokerProcess::start(&programs().broker, &forgejo, options)
        .await
        .unwrap();
    let client = Client::new(forwarder.mcp_url().parse().unwrap());
    sign_in(&client, LOGIN).await;
    forwarder.set_bearer(&client.access_token().expect("signing in yields a token"));

    let mut suite = suite(revision, &forwarder.mcp_url(), results);
    let status = tokio::task::spawn_blocking(move || suite.status()).await.unwrap();
    fs::write(results.join("broker.log"), broker.log().text()).unwrap();
    assert!(
        revision.cut.is_none() || forwarder.cuts() > 0 && forwarder.resumptions() > 0,
        "no stream was cut and resumed"
    );
    let ended = broker.terminate().await.unwrap();
    forgejo.stop().await;
    assert!(ended.success(), "the broker ended with {ended}");
    status.expect("cargo xtask interop installs the suite")
}

fn suite(revision: &Revision, url: &str, results: &Path) -> Command {
    let folder = root().join("interop/conformance");
    let mut command = Command::new(node(&folder));
    command
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", revision.name])
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
    scenarios.sort_by(|left, right| left.name.cmp(&right.name));
    scenarios
}

/// The name of the scenario in the name of its folder.
fn scenario_name(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    // The rest is a hyphen and a time such as 2026-07-28T12-00-00-000Z.
    name.len()
        .checked_sub(25)
        .map_or(name, |end| name.get(..end).unwrap_or(name))
}

impl Scenario {
    /// A scenario without a passed check proves nothing.
    fn passes(&self) -> bool {
        match self.name.as_str() {
            EMPTY_SCENARIO => self.failures.iter().all(|failure| failure.contains("(SKIPPED)")),
            _ => self.failures.is_empty() && self.passed > 0,
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.passes() { "ok  " } else { "FAIL" };
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
fn scenario_name_is_folder_name_without_prefix_and_time() {
    assert_eq!(
        scenario_name("server-server-sse-polling-2026-07-28T12-00-00-000Z"),
        "server-sse-polling"
    );
    assert_eq!(scenario_name("server-x"), "x");
}

#[test]
fn every_status_except_success_and_info_is_failure() {
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
