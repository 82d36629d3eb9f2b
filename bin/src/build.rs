//! What was built: shown by `--version`, `/healthz` and the first log line.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision, or `unknown` where the source did not come from git.
pub const REVISION: &str = env!("FORGEJO_MCP_BROKER_REVISION");
