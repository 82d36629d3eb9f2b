//! Measures the cost of a part. Each benchmark prints a Markdown report; the bridge's is also
//! written to `target/bench`.

use std::fs;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell;

/// The parts that have a benchmark.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Part {
    /// Round trips through the bridge, next to the bare pipe and a bare HTTP server
    Bridge,
    /// Dispatch, memory, revival and rotation in the registry
    Session,
    /// The start of a child, next to a bare one
    Supervisor,
}

pub(crate) fn run(part: Part) -> Result<()> {
    match part {
        Part::Bridge => bridge(),
        Part::Session => {
            shell::run(shell::cargo().args(["bench", "--locked", "--package", "session", "--bench", "session"]))
        }
        Part::Supervisor => shell::run(shell::cargo().args(["bench", "--locked", "--package", "supervisor"])),
    }
}

fn bridge() -> Result<()> {
    let mut build = shell::cargo();
    build.args([
        "build",
        "--release",
        "--locked",
        "--package",
        "testkit",
        "--bin",
        "fake-forgejo-mcp",
    ]);
    shell::run(&mut build)?;
    let target = shell::target()?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let mut bench = shell::cargo();
    bench
        .args(["bench", "--locked", "--package", "bridge", "--bench", "bridge"])
        .env("BRIDGE_BENCH_CHILD", target.join("release/fake-forgejo-mcp"))
        .env("BRIDGE_BENCH_REPORT", folder.join("bridge.md"));
    shell::run(&mut bench)
}
