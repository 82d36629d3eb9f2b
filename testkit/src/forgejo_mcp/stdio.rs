//! The loop over standard input, and the end of the process.
//!
//! `tools/call` goes to at most five workers, with up to 100 waiting calls; beyond that a call runs
//! in the loop and delays the reading. Everything else is answered in the loop. At the end of input
//! all calls still run; SIGTERM drops the waiting ones; either way the process waits for the
//! running ones.

use std::sync::Arc;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, stdin, stdout},
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    CallContext, Line, Options, QUEUED_LINES, WORKERS,
    api::Api,
    arguments::Era,
    inbox::Inbox,
    log, modern,
    protocol::{Incoming, Request},
};

const QUEUED_CALLS: usize = 100;
/// The longest accepted line, in bytes; a longer one ends the process.
const LINE_LIMIT: u64 = 64 * 1024 * 1024;

/// Serves until the end; returns the exit code.
pub(super) async fn serve(options: Arc<Options>, api: Arc<Api>, terminate: &CancellationToken) -> u8 {
    log::info("serving on stdio", &format!("url={}", options.url));
    let (lines, queued) = mpsc::channel(QUEUED_LINES);
    let workers = Arc::new(Semaphore::new(WORKERS));
    let context = CallContext {
        listens: (options.era == Era::Modern).then(Arc::default),
        answers: None,
        options,
        api,
        inbox: Arc::new(Inbox::default()),
        workers: Arc::clone(&workers),
        stream: lines.clone(),
        listener: lines.clone(),
    };
    let mut writer = JoinSet::new();
    writer.spawn(write(queued));
    let mut calls = JoinSet::new();

    let serving = async {
        tokio::select! {
            within_limit = read(context, &mut calls) => if !within_limit { return 1 },
            () = terminate.cancelled() => workers.close(),
        }
        while calls.join_next().await.is_some() {}
        0
    };
    let code = tokio::select! {
        code = serving => code,
        // Standard output is closed, which kills a Go program. `lines` keeps the writer alive
        // otherwise.
        _ = writer.join_next() => return 1,
    };
    drop((calls, lines));
    // The writer still writes the queued answers.
    writer.join_next().await;
    code
}

async fn read(context: CallContext, calls: &mut JoinSet<()>) -> bool {
    let mut stdin = BufReader::new(stdin());
    let mut line = Vec::new();
    let mut is_first = true;
    loop {
        line.clear();
        match (&mut stdin).take(LINE_LIMIT).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return true,
            Ok(_) if !line.ends_with(b"\n") && line.len() as u64 == LINE_LIMIT => return false,
            Ok(_) => {}
        }
        while calls.try_join_next().is_some() {}
        let message = Incoming::read(&line);
        let initializes =
            |message: &Incoming| matches!(message, Incoming::Request(Request { method, .. }) if method == "initialize");
        if std::mem::take(&mut is_first) && context.options.era == Era::Exits && !initializes(&message) {
            log::error("unexpected first message", "initialize is expected");
            return false;
        }
        match message {
            Incoming::Request(request) if request.method == "tools/call" => {
                if calls.len() < WORKERS + QUEUED_CALLS {
                    let context = context.clone();
                    calls.spawn(async move { context.serve(&request).await });
                } else {
                    context.call(&request).await;
                }
            }
            Incoming::Request(request) => context.serve(&request).await,
            Incoming::Other(message) => {
                if let Some(listens) = &context.listens {
                    modern::receive(listens, &message);
                }
                if context.options.test_tools {
                    context.inbox.add(&message);
                }
            }
            Incoming::Invalid { id, error } => context.answer(&id, Err(error)).await,
        }
    }
}

async fn write(mut lines: mpsc::Receiver<Line>) {
    let mut stdout = stdout();
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        if stdout.write_all(&line).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}
