//! A stdio MCP server with the fixtures of the official conformance suite.
//!
//! The suite prescribes each tool, prompt and resource of its server scenarios by name and answer.
//! This server has those of 2025-11-25 and of 2026-07-28, all in the protocol of 2025-11-25: it
//! asks its client by requests in the middle of a call, and has the tasks of that revision. So a
//! broker has to translate before the suite for 2026-07-28 can pass. A few tools of our own
//! (`roots`, `update_resource`, `wait`, `cancelled`) let client SDKs use the features that the
//! suite has no scenario for.
//!
//! Tools run at the same time, and requests to the client carry small numbers as ids, which a
//! client probably uses for its own requests too: a bridge that confuses the two directions fails.
//! A cancelled call is never answered. A task begins before the answer that names it is written, so
//! that its first question may come first.
//!
//! The messages are plain JSON. The SDKs of today have no tasks of 2025-11-25 any more.
//!
//! Left out: pages, and every transport but stdio.

mod call;
mod connection;
mod prompts;
mod questions;
mod resources;
mod server;
mod tasks;
#[cfg(test)]
mod tests;
mod tools;

use std::{process::ExitCode, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    runtime,
    sync::mpsc,
    task::JoinSet,
};

use self::server::Server;

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const INTERNAL_ERROR: i64 = -32603;

/// The number of lines that a client may leave unread; further ones are lost.
const QUEUED_LINES: usize = 4096;

/// Why a request has no ordinary result.
#[derive(Clone, Debug)]
enum Failure {
    /// A JSON-RPC error: code and message.
    Error(i64, String),
    /// A result of a tool with `isError`.
    Tool(String),
}

type Outcome = Result<Value, Failure>;

impl Failure {
    fn params(message: impl Into<String>) -> Self {
        Self::Error(INVALID_PARAMS, message.into())
    }
}

pub fn main() -> ExitCode {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(serve(tokio::io::stdin(), tokio::io::stdout()));
    // A thread of the runtime may be reading stdin; waiting for it would mean waiting for the
    // parent.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Serves until the input ends. Calls that still run then are not answered.
async fn serve(stdin: impl AsyncRead + Send + Unpin + 'static, stdout: impl AsyncWrite + Send + Unpin + 'static) {
    let (lines, queued) = mpsc::channel(QUEUED_LINES);
    let server = Arc::new(Server::new(lines));
    let mut writer = JoinSet::new();
    writer.spawn(write(queued, stdout));
    let mut input = BufReader::new(stdin).lines();
    while let Ok(Some(line)) = input.next_line().await {
        if let Ok(message @ Value::Object(_)) = serde_json::from_str(&line) {
            server.receive(message);
        }
    }
    server.end().await;
    drop(server);
    // The writer still writes the queued answers.
    writer.join_next().await;
}

async fn write(mut lines: mpsc::Receiver<Value>, mut stdout: impl AsyncWrite + Unpin) {
    while let Some(message) = lines.recv().await {
        let line = format!("{message}\n");
        if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}
