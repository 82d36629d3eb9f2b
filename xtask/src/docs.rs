//! Documents that are printed from code. Each has a test beside its code that compares the two.

use anyhow::{Context, Result};

use crate::shell;

pub(crate) fn run() -> Result<()> {
    let path = shell::root().join("docs/configuration.md");
    std::fs::write(&path, forgejo_mcp_broker::config::reference::markdown())
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("xtask: {} is new", path.display());
    Ok(())
}
