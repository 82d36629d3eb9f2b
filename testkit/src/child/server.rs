//! The loop over standard input, the workers, and the end.
//!
//! `tools/call` goes to at most five workers, with up to 100 calls waiting for one; beyond that a call runs in line and
//! holds up the reading. Everything else is answered in line. At the end of input all calls are still run; upon SIGTERM
//! those that wait are dropped; either way those that run are waited for.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    Options, catalogue,
    forgejo::Api,
    log::Log,
    protocol::{self, Failure, INVALID_PARAMS, Incoming, METHOD_NOT_FOUND, Outcome, RESOURCE_NOT_FOUND},
    test_tools::{self, World},
    tools,
};

/// Calls that run at the same time.
pub(super) const WORKERS: usize = 5;
/// Calls that wait for a worker.
const QUEUE: usize = 100;
/// The longest line that is read, in bytes; a longer one ends the process.
const LINE_LIMIT: u64 = 64 * 1024 * 1024;
/// Lines that wait to be written.
pub(super) const LINES: usize = 64;

/// What a call needs.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) options: Arc<Options>,
    pub(super) api: Arc<Api>,
    pub(super) log: Log,
    /// One permit a worker. Closed to drop the calls that wait.
    pub(super) workers: Arc<Semaphore>,
    /// Where answers go, and what belongs to a request.
    pub(super) lines: mpsc::Sender<String>,
    /// Where messages go that belong to no request.
    pub(super) own: mpsc::Sender<String>,
    pub(super) exit: mpsc::Sender<u8>,
}

/// Serves until the end; gives the exit code.
pub(super) async fn serve(
    options: Arc<Options>,
    api: Arc<Api>,
    log: Log,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Send + Unpin + 'static,
    terminate: &CancellationToken,
) -> u8 {
    let (lines, to_write) = mpsc::channel(LINES);
    let (exit, mut exits) = mpsc::channel(1);
    let workers = Arc::new(Semaphore::new(WORKERS));
    // Held until the rest has ended, so that the writer ends early only when nobody reads.
    let last_sender = lines.clone();
    let bench = Bench {
        options,
        api,
        log,
        workers: Arc::clone(&workers),
        own: lines.clone(),
        lines,
        exit,
    };
    let mut writer = JoinSet::new();
    writer.spawn(write(stdout, to_write));
    let mut calls = JoinSet::new();

    let regular = async {
        tokio::select! {
            within_limits = read(stdin, bench, &mut calls) => if !within_limits { return 1 },
            () = terminate.cancelled() => workers.close(),
        }
        while calls.join_next().await.is_some() {}
        0
    };
    let code = tokio::select! {
        biased;
        Some(code) = exits.recv() => return code,
        code = regular => code,
        // Nobody reads the answers any more; a Go program dies of that.
        _ = writer.join_next() => return 1,
    };
    drop(calls);
    drop(last_sender);
    // All that was answered is still written.
    writer.join_next().await;
    code
}

/// Reads and handles lines until the input ends; false if a line was too long.
async fn read(stdin: impl AsyncRead + Unpin, bench: Bench, calls: &mut JoinSet<()>) -> bool {
    let mut stdin = BufReader::new(stdin);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut stdin).take(LINE_LIMIT).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return true,
            Ok(_) if !line.ends_with(b"\n") && line.len() as u64 == LINE_LIMIT => return false,
            Ok(_) => {}
        }
        while calls.try_join_next().is_some() {}
        match Incoming::read(&line) {
            Incoming::Request { id, method, params } if method == "tools/call" => {
                if calls.len() < WORKERS + QUEUE {
                    let bench = bench.clone();
                    calls.spawn(async move {
                        // Fails only when the calls that wait are to be dropped.
                        if let Ok(_worker) = bench.workers.acquire().await {
                            bench.call(&id, &params).await;
                        }
                    });
                } else {
                    bench.call(&id, &params).await;
                }
            }
            Incoming::Request { id, method, params } => {
                bench.answer(&id, bench.in_line(&method, &params)).await;
            }
            Incoming::Ignored => {}
            Incoming::Refused { id, failure } => bench.answer(&id, Err(failure)).await,
        }
    }
}

/// Writes line after line; ends when all senders are gone or nobody reads.
async fn write(mut stdout: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<String>) {
    while let Some(mut line) = lines.recv().await {
        line.push('\n');
        if stdout.write_all(line.as_bytes()).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

impl Bench {
    async fn answer(&self, id: &Value, outcome: Outcome) {
        // Fails only when the writer has ended, which ends everything.
        let _ = self.lines.send(protocol::answer(id, outcome)).await;
    }

    /// Every method but `tools/call`.
    fn in_line(&self, method: &str, params: &Value) -> Outcome {
        match method {
            "initialize" => Ok(protocol::initialize(params)),
            "ping" | "logging/setLevel" => Ok(json!({})),
            "tools/list" => {
                let more = if self.options.test_tools {
                    test_tools::listed()
                } else {
                    Vec::new()
                };
                Ok(catalogue::tools(&more))
            }
            "resources/list" => Ok(json!({ "resources": [] })),
            "resources/templates/list" => Ok(catalogue::templates()),
            "resources/read" => {
                let uri = params["uri"].as_str().unwrap_or_default();
                Err(Failure::new(
                    RESOURCE_NOT_FOUND,
                    format!("handler not found for resource URI '{uri}'"),
                ))
            }
            _ => Err(Failure::new(METHOD_NOT_FOUND, format!("Method {method} not found"))),
        }
    }

    /// Answers a request, when a worker is free if it is a call.
    pub(super) async fn request(&self, id: &Value, method: &str, params: &Value) {
        if method != "tools/call" {
            return self.answer(id, self.in_line(method, params)).await;
        }
        if let Ok(_worker) = self.workers.acquire().await {
            self.call(id, params).await;
        }
    }

    /// Runs a tool and answers.
    async fn call(&self, id: &Value, params: &Value) {
        let Some(name) = params["name"].as_str() else {
            return self
                .answer(id, Err(Failure::new(INVALID_PARAMS, "a tool has a name")))
                .await;
        };
        self.log
            .info("tool call", &format!("tool={name} params={}", params["arguments"]));
        let world = World {
            options: &self.options,
            api: &self.api,
            log: &self.log,
            lines: &self.lines,
            own: &self.own,
            exit: &self.exit,
        };
        let special = if self.options.test_tools {
            test_tools::call(&world, name, params).await
        } else {
            None
        };
        let outcome = match special {
            Some(outcome) => outcome,
            None => tools::call(&self.api, name, &params["arguments"]).await,
        };
        if let Err(Failure { message, .. }) = &outcome {
            self.log.error("tool call failed", message);
        }
        self.answer(id, outcome).await;
    }
}

#[cfg(test)]
mod tests;
