//! The one command that checks everything: what the README names and what CI runs.

use anyhow::{Context, Result, bail};

use crate::{
    conformance, demo, interop,
    shell::{self, Tally},
};

/// The cargo-deny that checks licences, sources and duplicates; installed if this version is not there.
const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run() -> Result<()> {
    shell::run(shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::run(shell::cargo().args(["fmt", "--check", "--manifest-path", interop::RUST]))?;
    shell::run(shell::cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--all-features",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))?;
    deny()?;
    documentation()?;

    let mut all = Tally::default();
    let (tally, outcome) =
        shell::run_tests(shell::cargo().args(["test", "--workspace", "--all-features", "--locked", "--no-fail-fast"]));
    all += tally;
    report(all, outcome)?;
    let (tally, outcome) = interop::run_tests();
    all += tally;
    report(all, outcome)?;
    let (tally, outcome) = conformance::run_suite();
    all += tally;
    report(all, outcome)?;
    demo::run(true, None).context("the demo")?;

    if all.passed == 0 {
        bail!("no test was run");
    }
    println!("xtask: everything holds");
    println!("{} passed, {} failed", all.passed, all.failed);
    Ok(())
}

fn report(tally: Tally, outcome: Result<()>) -> Result<()> {
    if outcome.is_err() {
        println!("{} passed, {} failed", tally.passed, tally.failed.max(1));
    }
    outcome
}

fn deny() -> Result<()> {
    let installed = shell::cargo().args(["deny", "--version"]).output();
    let version = installed
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    if version.trim() != format!("cargo-deny {CARGO_DENY}") {
        shell::run(shell::cargo().args(["install", "--locked", "--version", CARGO_DENY, "cargo-deny"]))?;
    }
    shell::run(shell::cargo().args(["deny", "--workspace", "check", "bans", "licenses", "sources"]))
}

fn documentation() -> Result<()> {
    let mut rustdoc = shell::cargo();
    rustdoc.args(["doc", "--workspace", "--all-features", "--no-deps", "--locked"]);
    shell::run(rustdoc.env("RUSTDOCFLAGS", "--deny warnings"))
}
