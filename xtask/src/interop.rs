//! Installs the clients and the foreign MCP server of `interop/`, in the versions that are pinned there, and a browser,
//! builds the broker as it is released, and runs the tests that need them. Those are marked `#[ignore]` in `bin/tests/it/interop.rs`, so that a plain
//! `cargo test` needs neither Node nor Python nor another build.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;

use crate::shell::{self, Tally};

/// The manifest of the Rust client, which is a workspace of its own.
pub(crate) const RUST: &str = "interop/rust/Cargo.toml";

/// The name of the broker's program.
const BROKER: &str = "forgejo-mcp-broker";

pub(crate) fn run() -> Result<()> {
    let (tally, outcome) = run_tests();
    println!("{} passed, {} failed", tally.passed, tally.failed);
    outcome
}

/// Installs what is missing and runs the tests.
pub(crate) fn run_tests() -> (Tally, Result<()>) {
    if let Err(error) = install().and_then(|()| released()) {
        return (Tally::default(), Err(error));
    }
    let mut tests = shell::cargo();
    tests.args([
        "test",
        "--package",
        "forgejo-mcp-broker",
        "--all-features",
        "--locked",
        "--test",
        "it",
        "--",
        "--ignored",
        "interop::",
    ]);
    match shell::run_tests(&mut tests) {
        // A filter that fits no test is no success.
        (Tally { passed: 0, .. }, Ok(())) => (Tally::default(), Err(anyhow!("no test was run"))),
        outcome => outcome,
    }
}

fn install() -> Result<()> {
    node_packages("typescript")?;
    node_packages("tools")?;
    node_packages("conformance")?;
    chromium()?;

    shell::run(
        shell::cargo()
            .args(["build", "--quiet", "--locked", "--manifest-path", RUST])
            .args(["--target-dir", "target/interop/rust"]),
    )?;

    let root = shell::root();
    let environment = root.join("target/interop/python");
    let requirements = root.join("interop/python/requirements.txt");
    once(&requirements, &environment.join(".installed"), || {
        shell::run(
            shell::program("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )
        .context("Python's venv module is needed (Debian: python3-venv)")?;
        let mut pip = shell::program(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"])
            .arg(&requirements);
        shell::run(&mut pip)
    })
}

/// Builds the broker without the features of tests, and puts it where the tests look for it. They build the one with
/// them in its place.
fn released() -> Result<()> {
    let mut build = shell::cargo();
    build.args([
        "build",
        "--workspace",
        "--bins",
        "--locked",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    let output = build
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "cargo build failed ({})", output.status);
    let messages = String::from_utf8(output.stdout)?;
    let mut executables = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)));
    let broker = executables
        .find(|path| path.ends_with(BROKER))
        .context("cargo built no broker")?;
    let folder = shell::root().join("target/interop/released");
    fs::create_dir_all(&folder)?;
    fs::copy(broker, folder.join(BROKER))?;
    Ok(())
}

/// Installs the Node packages of a folder below `interop`, as its lock file has them.
pub(crate) fn node_packages(folder: &str) -> Result<()> {
    let folder = shell::root().join("interop").join(folder);
    once(
        &folder.join("package-lock.json"),
        &folder.join("node_modules/.installed"),
        || {
            let mut npm = shell::program("npm");
            npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
                .current_dir(&folder);
            shell::run(&mut npm)
        },
    )
}

/// Installs Chromium, as Debian has it, unless there is one.
fn chromium() -> Result<()> {
    let there = shell::program("chromium").arg("--version").output();
    if there.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    shell::run(shell::program("apt-get").args(["update", "--quiet"]))?;
    let mut install = shell::program("apt-get");
    install
        .args(["install", "--quiet", "--yes", "--no-install-recommends", "chromium"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(&mut install).context("Chromium is needed (Debian: chromium)")
}

/// Runs an installation unless the stamp says that it was made from the same lock file.
fn once(lock: &Path, stamp: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(lock).with_context(|| format!("{} cannot be read", lock.display()))?;
    if fs::read_to_string(stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).with_context(|| format!("{} cannot be written", stamp.display()))
}
