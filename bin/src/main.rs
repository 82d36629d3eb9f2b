//! The program; see `cli` in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    forgejo_mcp_broker::cli::run()
}
