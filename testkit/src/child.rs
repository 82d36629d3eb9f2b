//! A stdio MCP server that behaves as `forgejo-mcp` 2.34 does, oddities included.
//!
//! It asks Forgejo twice for its version before it serves and gives up if that fails; it answers `initialize` with
//! 2025-11-25 at most; its list of tools is one line of 90,470 bytes; tool calls run on five workers and are answered
//! out of order while everything else is answered in line; cancellation is ignored; a failing tool is a JSON-RPC error
//! with Forgejo's own message, token and all; and neither the end of input nor SIGTERM ends it before the calls that are
//! under way are done. Three tools do real work, with the token that the process was started with, so that a test can
//! see *whose* token a session holds.
//!
//! With `--transport http --http-port N` it serves all users at `/mcp`, each request with the token that it carries, and
//! checks nothing: a request without a token gets that of the process, any session id of the right form is as good as
//! another. It binds the loopback interface only, where `forgejo-mcp` binds all of them: a double that opens a port to the
//! network of whoever runs the tests would be a bad joke.
//!
//! With [`TEST_TOOLS`] set to `1` it also has tools by which a test makes it misbehave, and with [`STRICT`] set to `1` it is
//! another server over HTTP: one that checks tokens and knows only the sessions that it has opened. Left out: the work of
//! the other 138 tools, which are there to be listed, and the transport of 2024 (`sse`).

mod arguments;
mod catalogue;
mod forgejo;
mod http;
mod log;
mod protocol;
mod server;
mod test_tools;
mod tools;

use std::{io::Write, process::ExitCode, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use self::{arguments::Invocation, forgejo::Api, log::Log};

/// The version that the double gives itself.
pub const VERSION: &str = "2.34.1";

/// The variable that, set to `1`, adds the tools whose names begin with `test_`.
pub const TEST_TOOLS: &str = "FAKE_FORGEJO_MCP_TEST_TOOLS";

/// The variable that, set to `1`, makes the double over HTTP refuse tokens that Forgejo refuses (401) and sessions that it
/// has not opened itself (404), as other servers do.
pub const STRICT: &str = "FAKE_FORGEJO_MCP_STRICT";

/// How the double was started.
#[derive(Clone)]
pub struct Options {
    /// The instance's URL.
    pub url: String,
    /// The token for it. Without one the double starts all the same.
    pub token: Option<String>,
    /// Whether the tools for tests are there.
    pub test_tools: bool,
    /// The names of the variables in its environment, for the tool that tells them.
    pub environment: Vec<String>,
    /// The port that it serves over HTTP; `None` for the standard streams.
    pub http_port: Option<u16>,
    /// Whether it checks tokens and sessions.
    pub strict: bool,
}

/// The whole program: flags, environment, signals, and the standard streams.
pub fn main() -> ExitCode {
    let mut stderr = std::io::stderr();
    let invocation = arguments::parse(std::env::args().skip(1), std::env::vars_os());
    let options = match invocation {
        Ok(Invocation::Serve(options)) => options,
        Ok(Invocation::Version) => {
            let shown = writeln!(std::io::stdout(), "forgejo-mcp version {VERSION}");
            return if shown.is_ok() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            };
        }
        Err(fault) => {
            let _ = writeln!(stderr, "{fault}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(stderr, "no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let terminate = CancellationToken::new();
        let (Ok(mut term), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            return 1;
        };
        let signals = async {
            tokio::select! { _ = term.recv() => {} _ = interrupt.recv() => {} }
            terminate.cancel();
            // Further signals change nothing: the handlers stay and nobody listens.
            std::future::pending::<()>().await;
        };
        let serving = async {
            if let Some(port) = options.http_port {
                run_http(options, port, Box::new(stderr), terminate.clone()).await
            } else {
                run(
                    options,
                    tokio::io::stdin(),
                    tokio::io::stdout(),
                    Box::new(stderr),
                    terminate.clone(),
                )
                .await
            }
        };
        tokio::select! {
            code = serving => code,
            () = signals => 1,
        }
    });
    // A read of stdin may be under way on a thread of the runtime; waiting for it would be waiting for the parent.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Serves over any streams until the input ends or `terminate` fires, and then until the calls that are under way are
/// done. Gives the exit code.
pub async fn run(
    options: Options,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Send + Unpin + 'static,
    stderr: Box<dyn Write + Send>,
    terminate: CancellationToken,
) -> u8 {
    let log = Log::new(stderr);
    let Some(api) = greet(&options, &log).await else {
        return 1;
    };
    log.info("serving on stdio", &format!("url={}", options.url));
    server::serve(Arc::new(options), Arc::new(api), log, stdin, stdout, &terminate).await
}

/// Serves over HTTP on a port of the loopback interface until `terminate` fires. Gives the exit code.
pub async fn run_http(options: Options, port: u16, stderr: Box<dyn Write + Send>, terminate: CancellationToken) -> u8 {
    let log = Log::new(stderr);
    let Some(api) = greet(&options, &log).await else {
        return 1;
    };
    http::serve(options, api, log, port, &terminate).await
}

/// Asks Forgejo twice for its version: once to learn it, once to check the token.
async fn greet(options: &Options, log: &Log) -> Option<Api> {
    let api = Api::new(&options.url, options.token.clone());
    let api = api
        .map_err(|fault| log.error("cannot create the client", &fault))
        .ok()?;
    for _ in 0..2 {
        let reached = api.version().await;
        reached
            .map_err(|fault| log.error("cannot reach Forgejo", &fault))
            .ok()?;
    }
    Some(api)
}

/// Without the token.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("url", &self.url)
            .field("test_tools", &self.test_tools)
            .finish_non_exhaustive()
    }
}
