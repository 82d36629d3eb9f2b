//! A stdio MCP server that offers what the official conformance suite asks of a server, and a little more.
//!
//! The suite names each tool, prompt and resource that its server scenarios use, and what it has to answer; this is all of
//! them, in the protocol of 2025-11-25 over standard streams. What the suite has no scenario for is in tools of our own
//! (`roots`, `update_resource`, `change_tools`, `wait`, `cancelled`), so that client SDKs can be led through every feature.
//!
//! Tools run at the same time and their questions to the client carry small numbers as ids, which are likely to be the
//! ids of requests of the client as well: a bridge that confuses the two directions does not get through. A cancelled call
//! is never answered.
//!
//! Left out: pages, tasks, and every transport but stdio.

mod catalogue;
mod content;
mod peer;
mod prompts;
mod questions;
mod resources;
mod server;
#[cfg(test)]
mod tests;
mod tools;
mod wire;

use std::process::ExitCode;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime,
};

/// The whole program: serves over the standard streams until the input ends.
pub fn main() -> ExitCode {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(run(tokio::io::stdin(), tokio::io::stdout()));
    // A read of stdin may be under way on a thread of the runtime; waiting for it would be waiting for the parent.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Serves over any streams until the input ends. Calls that are under way then are dropped.
pub async fn run(stdin: impl AsyncRead + Unpin, stdout: impl AsyncWrite + Send + Unpin + 'static) {
    server::serve(stdin, stdout).await;
}
