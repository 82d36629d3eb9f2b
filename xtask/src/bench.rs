//! Measures what a part costs. The report is printed, and kept under `target/bench`.

use std::fs;

use anyhow::{Context, Result};

use crate::shell;

/// The bridge, next to the bare pipe and a bare HTTP server.
pub(crate) fn bridge() -> Result<()> {
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
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| shell::root().join("target"), Into::into);
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut bench = shell::cargo();
    bench
        .args(["bench", "--locked", "--package", "bridge", "--bench", "bridge"])
        .env("BRIDGE_BENCH_CHILD", target.join("release/fake-forgejo-mcp"))
        .env("BRIDGE_BENCH_REPORT", folder.join("bridge.md"));
    shell::run(&mut bench)
}
