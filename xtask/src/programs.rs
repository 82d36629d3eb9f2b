//! Builds the programs that end-to-end tests and the demo start, and says where they are.
//!
//! Feature sets decide what cargo compiles again. A build with tests also turns on the features
//! that development dependencies ask for, and a build without tests compiles half of the
//! dependencies a second time. So the tests find the programs where `cargo test` has put them.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::shell;

/// The variable that tells tests the folder of the built programs.
pub(crate) const FOLDER: &str = "TESTKIT_PROGRAMS";

const BROKER: &str = "forgejo-mcp-broker";

/// The folder into which cargo puts the programs of a development build.
pub(crate) fn folder() -> Result<PathBuf> {
    Ok(shell::target()?.join("debug"))
}

/// Builds all programs without building tests.
pub(crate) fn build() -> Result<()> {
    shell::run(shell::cargo().args([
        "build",
        "--workspace",
        "--all-features",
        "--bins",
        "--locked",
        "--quiet",
    ]))
}

/// The demo, which has to be built.
pub(crate) fn demo() -> Result<Command> {
    let folder = folder()?;
    let mut demo = shell::program(folder.join("demo"));
    demo.env(FOLDER, folder);
    Ok(demo)
}

/// Builds the broker without its `testing` feature, as it is released, and copies it to where the
/// tests look for it. Cargo's own copy is replaced by the next build with that feature.
pub(crate) fn build_without_testing() -> Result<()> {
    shell::run(shell::cargo().args(["build", "--package", BROKER, "--bins", "--locked", "--quiet"]))?;
    let copies = shell::root().join("target/interop/released");
    fs::create_dir_all(&copies)?;
    fs::copy(folder()?.join(BROKER), copies.join(BROKER))
        .with_context(|| format!("cannot copy the broker to {}", copies.display()))?;
    Ok(())
}
