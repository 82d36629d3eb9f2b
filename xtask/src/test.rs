//! The test command of the README, which CI runs, and the part of it that needs foreign programs.
//!
//! Two thirds of its work is compilation. The lints check each dependency, the tests compile it,
//! and the broker without `testing` compiles half of them again, since development dependencies
//! turn on features of tokio. The tests mostly wait.

#![expect(clippy::disallowed_types, reason = "a task times its own steps")]

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    install, programs,
    shell::{self, Background, Tally},
    tidy,
};

/// The long forms of the randomized tests: a variable that a test reads, and its value.
const LONG_FORMS: &[(&str, &str)] = &[
    ("BRIDGE_SCHEDULES", "100000"),
    ("CHAOS_SECONDS", "600"),
    ("CRASH_ROUNDS", "500"),
    ("OAUTH_SCHEDULES", "10000"),
    ("PARKED_CALLS", "10000"),
    ("PERMUTATIONS", "10000"),
];

/// Runs every check, the quick ones first. Programs that mostly wait, for the network or for each
/// other, run beside those that compute.
pub(crate) fn run(full: bool) -> Result<()> {
    let mut steps = Steps::default();
    steps.run("format", || {
        shell::run(shell::cargo().args(["fmt", "--all", "--check"]))
    })?;
    steps.run("tidy", tidy::run)?;
    let installation = Background::start(this_task("install")?)?;
    steps.run("licenses", || {
        shell::run(install::cargo_deny()?.args(["--workspace", "check", "bans", "licenses", "sources"]))
    })?;
    steps.run("lints", lints)?;
    steps.run("documentation", documentation)?;
    steps.run("test build", || build_tests(full))?;
    steps.run("build without testing", programs::build_without_testing)?;
    steps.run("end of installation", || installation.finish().1)?;
    let mut total = Tally::default();
    steps.run("tests", || {
        let interop = Background::start(interop("", full)?)?;
        let tests = shell::run_tests(tests(full)?.arg("--no-fail-fast"));
        total.add([tests, counted(interop.finish())])
    })?;
    steps.run("demo", || shell::run(programs::demo()?.arg("--once")))?;
    steps.print();
    ensure!(total.passed > 0, "no test ran");
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(())
}

/// Installs the foreign programs and runs those tests of `bin/tests/it/interop` whose path begins
/// with `filter`.
pub(crate) fn run_interop(filter: &str) -> Result<()> {
    install::interop()?;
    build_tests(false)?;
    programs::build_without_testing()?;
    let mut total = Tally::default();
    let outcome = counted(shell::run_tests(&mut interop(filter, false)?));
    total.add([outcome])?;
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(())
}

fn lints() -> Result<()> {
    let targets = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
    shell::run(shell::cargo().args(targets).args(["--", "--deny", "warnings"]))
}

/// Builds the documentation of all crates and refuses broken links.
fn documentation() -> Result<()> {
    let mut rustdoc = shell::cargo();
    rustdoc.args(["doc", "--workspace", "--all-features", "--no-deps", "--locked"]);
    // With the examples the build has the features of the lints' build, and checks no dependency
    // again.
    rustdoc.args(["--lib", "--bin", "demo", "--bin", "xtask", "--examples"]);
    shell::run(rustdoc.env(
        "RUSTDOCFLAGS",
        "--deny warnings --allow rustdoc::private_intra_doc_links",
    ))
}

/// Another run of `cargo xtask`.
fn this_task(name: &str) -> Result<Command> {
    let mut task = shell::program(std::env::current_exe()?);
    task.arg(name);
    Ok(task)
}

/// Builds the tests and the programs that they start.
fn build_tests(full: bool) -> Result<()> {
    shell::run(tests(full)?.args(["--quiet", "--no-run"]))
}

/// A run of all tests that need nothing but the workspace. Its build includes the programs that the
/// tests start, so the tests build none themselves.
fn tests(full: bool) -> Result<Command> {
    let mut command = shell::cargo();
    command
        .args(["test", "--workspace", "--all-features", "--locked"])
        .env(programs::FOLDER, programs::folder()?);
    if full {
        command.envs(LONG_FORMS.iter().copied());
    }
    Ok(command)
}

/// A run of the tests that are ignored elsewhere, since they need foreign programs. The build is
/// that of all other tests.
fn interop(filter: &str, full: bool) -> Result<Command> {
    let mut command = tests(full)?;
    command
        .args(["--test", "it", "--", "--ignored"])
        .arg(format!("interop::{filter}"));
    Ok(command)
}

/// The outcome of a run with a filter: one that matches no test is a mistake.
fn counted(outcome: (Tally, Result<()>)) -> (Tally, Result<()>) {
    match outcome {
        (Tally { passed: 0, .. }, Ok(())) => (Tally::default(), Err(anyhow!("no test ran"))),
        outcome => outcome,
    }
}

/// Times the steps of a run.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn run(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        let begun = Instant::now();
        let outcome = step();
        self.0.push((name, begun.elapsed()));
        outcome.context(name)
    }

    fn print(&self) {
        for (name, time) in &self.0 {
            println!("xtask: {name} took {} s", time.as_secs());
        }
    }
}

impl Tally {
    /// Adds the tests of some runs. Prints the sum if one of them failed, so that the last line
    /// counts.
    fn add<const RUNS: usize>(&mut self, runs: [(Tally, Result<()>); RUNS]) -> Result<()> {
        let mut outcome = Ok(());
        for (tally, ended) in runs {
            self.passed += tally.passed;
            self.failed += tally.failed;
            outcome = outcome.and(ended);
        }
        if outcome.is_err() {
            println!("{} passed, {} failed", self.passed, self.failed.max(1));
        }
        outcome
    }
}
