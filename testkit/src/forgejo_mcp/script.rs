//! The behavior of a process of the double from its start on, in a file that a test changes between
//! two starts.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

/// The variable that names the file.
pub const SCRIPT: &str = "FAKE_FORGEJO_MCP_SCRIPT";

/// The behavior of each process that starts with it. The default is the behavior without a file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// It exits with this status before it does anything.
    pub exit: Option<u8>,
    /// The protocol version with which it answers `initialize`.
    pub protocol_version: Option<String>,
    pub refuses_initialize: bool,
    /// The capabilities that it lacks.
    pub lacks: Vec<String>,
    /// Further tools in its list. They do nothing.
    pub more_tools: Vec<String>,
    /// The methods, and the tools, whose requests it takes and never answers.
    pub never_answers: Vec<String>,
    /// The time that it takes for each `resources/subscribe`, in milliseconds. Meanwhile it reads
    /// nothing.
    pub subscribe_ms: u64,
}

/// A file with a script, in a directory of its own.
#[derive(Debug)]
pub struct ScriptFile(TempDir);

impl Script {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

impl ScriptFile {
    pub fn new(script: &Script) -> io::Result<Self> {
        let file = Self(TempDir::with_prefix("fake-forgejo-mcp-")?);
        file.write(script)?;
        Ok(file)
    }

    /// Replaces the script, for processes that start from now on.
    pub fn write(&self, script: &Script) -> io::Result<()> {
        let new = self.directory().join("new");
        fs::write(&new, serde_json::to_vec(script)?)?;
        fs::rename(new, self.path())
    }

    pub fn path(&self) -> PathBuf {
        self.directory().join("script.json")
    }

    /// The directory that the double must be able to read.
    pub fn directory(&self) -> &Path {
        self.0.path()
    }
}
