//! The program. Everything is in the library beside it; `cli` is the table of contents.

use std::process::ExitCode;

fn main() -> ExitCode {
    forgejo_mcp_broker::cli::run()
}
