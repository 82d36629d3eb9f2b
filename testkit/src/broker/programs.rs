//! The programs that end-to-end tests start, built if necessary.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Programs {
    pub broker: PathBuf,
    pub fake_forgejo_mcp: PathBuf,
    pub conformance_mcp: PathBuf,
    pub interop_rust: PathBuf,
}

/// The variable that names a folder with the programs, for a caller that has just built them.
const FOLDER: &str = "TESTKIT_PROGRAMS";

/// The programs of the workspace: those in the folder that `TESTKIT_PROGRAMS` names, or else built
/// once per process.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        match std::env::var_os(FOLDER) {
            Some(folder) => Programs::find(|name| Ok(Path::new(&folder).join(name))),
            None => build(),
        }
        .expect("the programs of the workspace can be built")
    })
}

impl Programs {
    fn find(path: impl Fn(&str) -> Result<PathBuf>) -> Result<Self> {
        Ok(Self {
            broker: path("forgejo-mcp-broker")?,
            fake_forgejo_mcp: path("fake-forgejo-mcp")?,
            conformance_mcp: path("conformance-mcp")?,
            interop_rust: path("interop-rust")?,
        })
    }
}

fn build() -> Result<Programs> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os().filter(|(name, _)| belongs_to_this_test(name)) {
        cargo.env_remove(name);
    }
    // The whole workspace with all features, as for the tests, so that nothing is compiled twice.
    let output = cargo
        .args([
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--locked",
            "--quiet",
        ])
        .arg("--message-format=json")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("cargo build failed ({})", output.status);
    }
    let messages = String::from_utf8(output.stdout)?;
    let messages = messages.lines().filter_map(|line| serde_json::from_str(line).ok());
    let executable = |message: Value| message["executable"].as_str().map(PathBuf::from);
    let executables: Vec<PathBuf> = messages.filter_map(executable).collect();
    Programs::find(|name| {
        let found = executables.iter().find(|path| path.ends_with(name));
        found.cloned().with_context(|| format!("cargo built no {name}"))
    })
}

/// Variables that the cargo above this test sets for its package; build scripts that watch them
/// would run again.
fn belongs_to_this_test(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || ["OUT_DIR", "FORGEJO_MCP_BROKER_REVISION"].contains(&&*name)
}
