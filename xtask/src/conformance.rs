//! The official conformance suite of MCP, in the role of a client, against the running broker.
//!
//! The suite sends no `Authorization`: a forwarder stands in front of the broker, as the reverse proxy of an operator would,
//! and adds the bearer of a user who was signed in through it. Host and Origin pass unchanged, so that the suite's attack by DNS
//! rebinding meets the broker. Behind the broker runs a stdio server that has what the suite asks for
//! ([`testkit::conformance`]).
//!
//! Everything that the suite says is held to: a scenario that it runs without scoring has to pass as well, and a
//! warning or a check that was skipped is a failure. Which scenarios are known to fail stands in
//! `interop/conformance/baseline.yml`, and the suite refuses a stale entry there.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use testkit::{
    Browser, Client, FakeForgejo, Forwarder,
    broker::{BrokerOptions, BrokerProcess, ChildCommand, free_port, programs, public_url, redirect_uri},
    forgejo::Options,
};

use crate::{
    interop,
    shell::{self, Tally},
};

/// The revision whose requirements have to be met.
const REVISION: &str = "2025-11-25";

/// How many scenarios the suite runs for a server of that revision, in the version that is pinned: 30 that it requires, and
/// three more (`server-session-lifecycle`, `server-sse-polling`, `json-schema-2020-12`).
const SCENARIOS: usize = 33;

/// The tool whose answer the forwarder cuts, so that the suite has to resume the stream.
const RECONNECTION: &str = "test_reconnection";

/// The user that is signed in.
const LOGIN: &str = "alice";
const PASSWORD: &str = "alice-password";

/// What the suite found in one scenario.
struct Scenario {
    name: String,
    passed: usize,
    /// The checks that did not pass, with what the suite says about them.
    faults: Vec<String>,
}

pub(crate) fn run() -> Result<()> {
    let (tally, outcome) = run_suite();
    println!("{} passed, {} failed", tally.passed, tally.failed);
    outcome
}

/// Installs the suite if it is not there and runs it; counts scenarios.
pub(crate) fn run_suite() -> (Tally, Result<()>) {
    let mut tally = Tally::default();
    let outcome = (|| {
        install()?;
        let results = shell::root().join("target/conformance");
        if results.exists() {
            fs::remove_dir_all(&results)?;
        }
        fs::create_dir_all(&results)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let status = runtime.block_on(against_a_broker(&results))?;
        let scenarios = read(&results)?;
        tally = report(&scenarios);
        judge(&scenarios, status, &results)
    })();
    (tally, outcome)
}

fn install() -> Result<()> {
    interop::node_packages("conformance")
}

/// Starts everything, lets the suite run, and takes everything down.
async fn against_a_broker(results: &Path) -> Result<ExitStatus> {
    println!("xtask: building the broker");
    let programs = programs();
    let (port, front) = (free_port(), free_port());
    let forgejo = FakeForgejo::start(Options::for_redirect(&redirect_uri(front))).await?;
    // Most scenarios leave their session open.
    let settings = [
        ("server.public_url", public_url(front)),
        ("session.max_sessions_per_user", "200".to_owned()),
    ];
    let options = BrokerOptions {
        port,
        child: Some(ChildCommand::plain(&programs.conformance_mcp)),
        settings: settings.map(|(key, value)| (key.to_owned(), value)).to_vec(),
        environment: vec![],
        keep_socket: false,
    };
    let forwarder = Forwarder::start(front, port, Some(RECONNECTION)).await?;
    let mut broker = BrokerProcess::start(&programs.broker, &forgejo, options).await?;
    let client = Client::new(forwarder.mcp_url().parse()?);
    client.sign_in(&mut Browser::new(), LOGIN, PASSWORD).await?;
    forwarder.set_bearer(&client.access_token().context("signing in brings a token")?);

    let mut suite = suite(&forwarder.mcp_url(), results)?;
    let status = tokio::task::spawn_blocking(move || suite.status()).await?;
    fs::write(results.join("broker.log"), broker.log().text())?;
    ensure!(
        forwarder.cuts() > 0 && forwarder.resumptions() > 0,
        "no stream was cut and resumed"
    );
    let ended = broker.terminate().await?;
    forgejo.stop().await;
    ensure!(ended.success(), "the broker ended with {ended}");
    status.context("the suite could not be started")
}

fn suite(url: &str, results: &Path) -> Result<Command> {
    let folder = shell::root().join("interop/conformance");
    let mut command = shell::program(node(&folder));
    command
        .arg(folder.join("node_modules/@modelcontextprotocol/conformance/dist/index.js"))
        .args(["server", "--url", url, "--requirements", REVISION])
        .arg("--expected-failures")
        .arg(folder.join("baseline.yml"))
        .arg("--output-dir")
        .arg(results)
        .stdout(File::create(results.join("suite.log"))?);
    println!("xtask: the conformance suite, requirements {REVISION}, at {url}");
    Ok(command)
}

/// The Node that was installed with the suite, which wants 22 or later; on a machine for which there is none, the
/// one in the path.
fn node(folder: &Path) -> PathBuf {
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let installed = folder.join(format!("node_modules/node-{}-{arch}/bin/node", std::env::consts::OS));
    if installed.exists() { installed } else { "node".into() }
}

/// Reads the folder of each scenario: `server-NAME-TIME`, with the checks in `checks.json`.
fn read(results: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(results)? {
        let path = entry?.path();
        let checks = path.join("checks.json");
        if !checks.exists() {
            continue;
        }
        let folder = path.file_name().unwrap_or_default().to_string_lossy();
        let checks: Vec<Value> = serde_json::from_slice(&fs::read(&checks)?).context("checks that cannot be read")?;
        scenarios.push(scenario(name(&folder), &checks));
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}

/// The scenario's name in that of its folder.
fn name(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    // A hyphen and a time such as 2026-07-28T12-00-00-000Z.
    name.len()
        .checked_sub(25)
        .map_or(name, |end| name.get(..end).unwrap_or(name))
}

fn scenario(name: &str, checks: &[Value]) -> Scenario {
    let mut scenario = Scenario {
        name: name.to_owned(),
        passed: 0,
        faults: Vec::new(),
    };
    for check in checks {
        match check["status"].as_str() {
            Some("SUCCESS") => scenario.passed += 1,
            Some("INFO") => {}
            status => {
                let status = status.unwrap_or("no status");
                let text = |key: &str| check[key].as_str().unwrap_or_default();
                scenario
                    .faults
                    .push(format!("{} ({status}): {}", text("id"), text("errorMessage")));
            }
        }
    }
    scenario
}

fn report(scenarios: &[Scenario]) -> Tally {
    let mut tally = Tally::default();
    for Scenario { name, passed, faults } in scenarios {
        // A scenario in which nothing was checked shows nothing.
        let holds = faults.is_empty() && *passed > 0;
        let (sign, count) = if holds {
            ("ok  ", &mut tally.passed)
        } else {
            ("FAIL", &mut tally.failed)
        };
        *count += 1;
        println!("{sign} {name} ({passed} checks passed)");
        for fault in faults {
            println!("     {fault}");
        }
    }
    tally
}

fn judge(scenarios: &[Scenario], status: ExitStatus, results: &Path) -> Result<()> {
    let details = results.join("suite.log");
    if let Some(failed) = scenarios
        .iter()
        .find(|scenario| !scenario.faults.is_empty() || scenario.passed == 0)
    {
        bail!("{} does not hold: {}", failed.name, details.display());
    }
    ensure!(
        scenarios.len() == SCENARIOS,
        "{} scenarios were run, not {SCENARIOS}: {}",
        scenarios.len(),
        details.display()
    );
    ensure!(status.success(), "the suite ended with {status}: {}", details.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{name, scenario};

    #[test]
    fn a_folder_is_named_after_its_scenario() {
        assert_eq!(
            name("server-server-sse-polling-2026-07-28T12-00-00-000Z"),
            "server-sse-polling"
        );
        assert_eq!(name("server-x"), "x");
    }

    #[test]
    fn everything_but_success_and_information_is_a_fault() {
        let checks = ["SUCCESS", "INFO", "WARNING", "SKIPPED", "FAILURE"]
            .map(|status| json!({ "id": status, "status": status, "errorMessage": "why" }));
        let scenario = scenario("x", &checks);
        assert_eq!(scenario.passed, 1);
        assert_eq!(
            scenario.faults,
            [
                "WARNING (WARNING): why",
                "SKIPPED (SKIPPED): why",
                "FAILURE (FAILURE): why"
            ]
        );
    }
}
