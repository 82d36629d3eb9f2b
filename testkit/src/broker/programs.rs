//! Finds the programs that end-to-end tests start, building them if they are not there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The broker.
    pub broker: PathBuf,
    /// The double of `forgejo-mcp`.
    pub fake_forgejo_mcp: PathBuf,
    /// The MCP server for the conformance suite.
    pub conformance_mcp: PathBuf,
}

/// The variable that names a folder with the built programs, for a caller that has just built them.
const FOLDER: &str = "TESTKIT_PROGRAMS";

/// The programs of the workspace: those in the folder that `TESTKIT_PROGRAMS` names, else built once in
/// the life of this process.
///
/// # Panics
///
/// If they cannot be built.
pub fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| match std::env::var_os(FOLDER) {
        Some(folder) => in_folder(Path::new(&folder)),
        None => build().expect("the programs of the workspace can be built"),
    })
}

fn in_folder(folder: &Path) -> Programs {
    Programs {
        broker: folder.join("forgejo-mcp-broker"),
        fake_forgejo_mcp: folder.join("fake-forgejo-mcp"),
        conformance_mcp: folder.join("conformance-mcp"),
    }
}

fn build() -> Result<Programs> {
    // The whole workspace with all features, as the tests are built: so nothing is compiled twice.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the cargo above this test says of its package, and what that one's build script has said: build scripts that
    // look at it would run again.
    let of_this_test = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("CARGO_PKG_")
            || name.starts_with("CARGO_MANIFEST_")
            || ["OUT_DIR", "FORGEJO_MCP_BROKER_REVISION"].contains(&&*name)
    };
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_this_test(name)) {
        cargo.env_remove(name);
    }
    let output = cargo
        .args([
            "build",
            "--workspace",
            "--all-features",
            "--bins",
            "--locked",
            "--quiet",
            "--message-format=json",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("cargo build failed ({})", output.status);
    }
    let messages = String::from_utf8(output.stdout)?;
    let executables: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| Some(PathBuf::from(message.get("executable")?.as_str()?)))
        .collect();
    let find = |name: &str| {
        let found = executables
            .iter()
            .find(|path| path.file_name().is_some_and(|file| file == name));
        found.cloned().with_context(|| format!("cargo built no {name}"))
    };
    Ok(Programs {
        broker: find("forgejo-mcp-broker")?,
        fake_forgejo_mcp: find("fake-forgejo-mcp")?,
        conformance_mcp: find("conformance-mcp")?,
    })
}
