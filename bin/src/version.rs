//! Version and revision of the program, for `--version`, `/healthz` and the first log line.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The git revision, or `unknown` outside a git checkout.
pub const REVISION: &str = env!("FORGEJO_MCP_BROKER_REVISION");
