//! An MCP server that behaves as `forgejo-mcp` 2.34 does, oddities included. It runs as a process
//! of its own.
//!
//! It requests Forgejo's version twice before it serves, and exits if that fails. It answers
//! `initialize` with 2025-11-25 at most. Its list of tools is one line of 90,470 bytes. Tool calls
//! run on five workers and are answered out of order; everything else is answered in order. It
//! ignores cancellation. A failing tool is a JSON-RPC error with Forgejo's own message, token
//! included. End of input and SIGTERM end it only after the calls in flight. Three tools work, with
//! the token that the process was started with, so that a test can see *whose* token a session
//! holds.
//!
//! With `--transport http --http-port N` it serves all users at `/mcp`, each request with its own
//! token, and checks nothing: a request without a token uses the process's token, and any
//! well-formed session id is valid. It binds the loopback interface only, where `forgejo-mcp` binds
//! all of them.
//!
//! With [`TEST_TOOLS`] set to `1` it has tools that make it misbehave, accepts subscriptions, and
//! writes each message that it gets to standard error. With [`SCRIPT`] a file says how it behaves
//! from its start on. With [`ERA`] set to `modern` it speaks only MCP 2026-07-28. With [`STRICT`]
//! set it is another kind of HTTP server: one that checks tokens and knows only the sessions that
//! it has opened. Left out: the work of the other 138 tools, which are only listed, and the
//! transport of 2024 (`sse`).

mod api;
mod arguments;
mod call;
mod catalog;
mod http;
mod inbox;
mod log;
mod misbehavior;
mod modern;
mod protocol;
mod script;
mod stdio;
mod test_tools;

use std::{process::ExitCode, sync::Arc};

use serde_json::Value;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

pub use self::script::{SCRIPT, Script, ScriptFile};
use self::{api::Api, arguments::Options, inbox::Inbox, modern::Listens};

pub const VERSION: &str = "2.34.1";

/// The variable that, set to `1`, adds the tools whose names begin with `test_`.
pub const TEST_TOOLS: &str = "FAKE_FORGEJO_MCP_TEST_TOOLS";

/// The variable that makes the double over HTTP refuse tokens that Forgejo refuses (401) and
/// sessions that it has not opened itself: with 404 if it is `1`, with 400 if it is `400`.
pub const STRICT: &str = "FAKE_FORGEJO_MCP_STRICT";

/// The variable that, set to `modern`, makes the double a server of MCP 2026-07-28 only. With
/// `exits` it is one of 2025-11-25 that exits when the first message is not `initialize`.
pub const ERA: &str = "FAKE_FORGEJO_MCP_ERA";

/// A message as it is written, without the line feed. It need not be UTF-8.
type Line = Vec<u8>;

const WORKERS: usize = 5;
const QUEUED_LINES: usize = 64;

#[derive(Clone)]
struct CallContext {
    options: Arc<Options>,
    api: Arc<Api>,
    inbox: Arc<Inbox>,
    /// One permit a worker. Closed to drop the waiting calls.
    workers: Arc<Semaphore>,
    /// Takes the answer, and messages that belong to the request.
    stream: mpsc::Sender<Line>,
    /// Takes messages that belong to no request.
    listener: mpsc::Sender<Line>,
    /// Of a server of the modern era.
    listens: Option<Arc<Listens>>,
    /// The client's answers to the questions of a call, if it brings them.
    answers: Option<Vec<Value>>,
}

pub fn main() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let options = match arguments::parse(std::env::args(), variable) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    if let Some(code) = options.script.exit {
        log::raw(&format!("exiting pid={}\n", std::process::id()));
        return ExitCode::from(code);
    }
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    let code = runtime.block_on(run(options));
    // A thread of the runtime may be reading stdin; waiting for it would mean waiting for the
    // parent.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Serves until the end; returns the exit code.
async fn run(options: Options) -> u8 {
    let terminate = CancellationToken::new();
    let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        return 1;
    };
    let signals = async {
        tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
        terminate.cancel();
        // Further signals have no effect: their handlers stay installed.
        std::future::pending().await
    };
    let serving = async {
        let Some(api) = connect(&options).await else {
            return 1;
        };
        let (options, api) = (Arc::new(options), Arc::new(api));
        match options.http_port {
            Some(port) => http::serve(options, api, port, &terminate).await,
            None => stdio::serve(options, api, &terminate).await,
        }
    };
    tokio::select! { code = serving => code, code = signals => code }
}

/// Requests Forgejo's version twice: once to learn it, once to check the token.
async fn connect(options: &Options) -> Option<Api> {
    let api = Api::new(&options.url, options.token.clone());
    let api = api
        .map_err(|error| log::error("cannot create the client", &error))
        .ok()?;
    for _ in 0..2 {
        let version = api.get("/api/v1/version").await;
        version
            .map_err(|error| log::error("cannot reach Forgejo", &error))
            .ok()?;
    }
    Some(api)
}
