//! The loop over standard input. Tool calls run beside it, everything else is answered in line.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    sync::mpsc,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    catalogue,
    peer::Peer,
    prompts, resources, tools,
    wire::{self, Failure, Incoming, METHOD_NOT_FOUND, Outcome},
};

/// The newest version of MCP that it speaks, and its answer to any that it does not.
const NEWEST: &str = "2025-11-25";

/// The versions that it echoes.
const SPOKEN: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST];

/// Lines that wait to be written.
const LINES: usize = 64;

/// Calls that run at the same time; further ones are refused.
const CALLS: usize = 256;

/// Serves until the input ends or nobody reads the output.
pub(super) async fn serve(stdin: impl AsyncRead + Unpin, stdout: impl AsyncWrite + Send + Unpin + 'static) {
    let (lines, to_write) = mpsc::channel(LINES);
    let mut writer = JoinSet::new();
    writer.spawn(write(stdout, to_write));
    tokio::select! {
        () = read(stdin, Peer::new(lines)) => {}
        _ = writer.join_next() => {}
    }
    // What was answered before the input ended is still written: the senders are gone.
    writer.join_next().await;
}

async fn read(stdin: impl AsyncRead + Unpin, peer: Peer) {
    let mut stdin = BufReader::new(stdin);
    let mut line = Vec::new();
    let mut calls = JoinSet::new();
    loop {
        line.clear();
        match stdin.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        while calls.try_join_next().is_some() {}
        match Incoming::read(&line) {
            Incoming::Request { id, method, params } if method == "tools/call" => {
                if calls.len() < CALLS {
                    // Noted before the next line is read: that may be its cancellation.
                    let cancelled = peer.begin(&id);
                    calls.spawn(call(peer.clone(), id, params, cancelled));
                } else {
                    let refused = Failure::invalid("too many calls at once");
                    peer.send(wire::answer(&id, Err(refused))).await;
                }
            }
            Incoming::Request { id, method, params } => {
                peer.send(wire::answer(&id, in_line(&peer, &method, &params))).await;
            }
            Incoming::Notification { method, params } if method == "notifications/cancelled" => {
                peer.cancel(&params["requestId"]);
            }
            Incoming::Notification { .. } => {}
            Incoming::Answer { id, outcome } => peer.answered(&id, outcome),
            Incoming::Unreadable => peer.send(wire::unreadable()).await,
        }
    }
}

/// Runs a tool and answers, unless the client cancels the call first.
async fn call(peer: Peer, id: Value, params: Value, cancelled: CancellationToken) {
    tokio::select! {
        outcome = tools::call(&peer, &params) => peer.send(wire::answer(&id, outcome)).await,
        () = cancelled.cancelled() => {
            peer.note_cancelled(params["arguments"]["tag"].as_str().unwrap_or_default());
        }
    }
    peer.finish(&id);
}

/// Every method but `tools/call`.
fn in_line(peer: &Peer, method: &str, params: &Value) -> Outcome {
    let uri = || params["uri"].as_str().unwrap_or_default();
    match method {
        "initialize" => {
            peer.declared(params["capabilities"].clone());
            Ok(initialize(params))
        }
        "ping" => Ok(json!({})),
        "logging/setLevel" => {
            let level = params["level"].as_str().unwrap_or_default();
            let known = peer.set_level(level);
            known
                .then(|| json!({}))
                .ok_or_else(|| Failure::invalid(format!("no level {level:?}")))
        }
        "tools/list" => Ok(catalogue::tools()),
        "resources/list" => Ok(resources::list()),
        "resources/templates/list" => Ok(resources::templates()),
        "resources/read" => resources::read(uri()),
        "resources/subscribe" => {
            peer.subscribe(uri());
            Ok(json!({}))
        }
        "resources/unsubscribe" => {
            peer.unsubscribe(uri());
            Ok(json!({}))
        }
        "prompts/list" => Ok(prompts::list()),
        "prompts/get" => prompts::get(params),
        "completion/complete" => Ok(prompts::complete(params)),
        _ => Err(Failure {
            code: METHOD_NOT_FOUND,
            message: format!("no method {method:?}"),
        }),
    }
}

fn initialize(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str().unwrap_or(NEWEST);
    let version = if SPOKEN.contains(&wanted) { wanted } else { NEWEST };
    json!({
        "protocolVersion": version,
        "capabilities": {
            "completions": {},
            "logging": {},
            "prompts": { "listChanged": true },
            "resources": { "listChanged": true, "subscribe": true },
            "tools": { "listChanged": true },
        },
        "serverInfo": { "name": "conformance", "version": env!("CARGO_PKG_VERSION") },
    })
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
