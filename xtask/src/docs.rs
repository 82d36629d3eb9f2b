//! Documents that are printed from code. Each has a test beside its code that compares the two.

use anyhow::{Context, Result};

use crate::shell;

pub(crate) fn run() -> Result<()> {
    for (page, text) in [
        (
            "docs/configuration.md",
            forgejo_mcp_broker::config::reference::markdown(),
        ),
        (
            "docs/metrics.md",
            forgejo_mcp_broker::adapters::metrics::reference::markdown(),
        ),
    ] {
        let path = shell::root().join(page);
        std::fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
        println!("xtask: {} is new", path.display());
    }
    Ok(())
}
