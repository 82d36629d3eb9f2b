//! Ties a link to the byte stream of a bridge: lines go out as HTTP requests, and what comes back is written as lines.
//!
//! Requests run side by side. Whatever needs no answer is sent one after the other in the order in which the client sent it, and no
//! request waits for that, except for `notifications/initialized`: it is taken by the server before anything else is read. How many
//! requests there are at once is the bridge's limit; it also cancels what takes too long, and a cancelled request is ended here, before
//! the server is told.
//!
//! A server that cannot be reached for the handshake is like a child that does not start: the stream ends. Later that is an error
//! for the request, and the stream goes on.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use session::ports::BoxFuture;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, WriteHalf, split},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    answers::Request,
    link::Link,
    message::{self, Outgoing},
    trouble::Trouble,
};

/// Lines that wait for the bridge to read. Beyond them the server's answers are read no further.
const LINES: usize = 16;

/// Messages without an answer that wait for the server to take the one before. Beyond them the bridge is read no further.
const MESSAGES: usize = 16;

/// How long the server may take to accept what needs no answer.
const ACCEPTANCE: Duration = Duration::from_secs(30);

/// What has become of a task.
enum End {
    /// The request with this id has its answer.
    Answered(String),
    /// Nothing more is heard on the server's own account.
    Silent,
    /// There is no point in going on.
    Fatal,
}

/// The requests that are under way, and how to end them.
struct UnderWay {
    tasks: JoinSet<End>,
    cancellations: HashMap<String, CancellationToken>,
    /// What needs no answer, in order.
    messages: mpsc::Sender<Bytes>,
}

/// Carries a link over a byte stream until either end is done with it, and says goodbye to the server.
///
/// `listeners` says how many clients listen to what the server has to say; `closing` ends it whatever it is at. Dropping the future
/// ends all that is under way, without a goodbye.
#[must_use]
pub fn carry(
    link: Arc<Link>,
    io: DuplexStream,
    listeners: watch::Receiver<usize>,
    closing: CancellationToken,
) -> BoxFuture<'static, ()> {
    // Boxed, since a link that is opened anew carries a link.
    Box::pin(async move {
        closing.run_until_cancelled(run(&link, io, listeners)).await;
        link.end().await;
    })
}

/// Dropping it ends all that is under way.
async fn run(link: &Arc<Link>, io: DuplexStream, listeners: watch::Receiver<usize>) {
    let (from_bridge, to_bridge) = split(io);
    let (lines, written) = mpsc::channel(LINES);
    let (messages, to_tell) = mpsc::channel(MESSAGES);
    let mut under_way = UnderWay {
        tasks: JoinSet::new(),
        cancellations: HashMap::new(),
        messages,
    };
    under_way.tasks.spawn(write(to_bridge, written));
    under_way.tasks.spawn(tell_all(Arc::clone(link), to_tell));
    under_way
        .tasks
        .spawn(listen(Arc::clone(link), listeners, lines.clone()));

    let mut from_bridge = BufReader::new(from_bridge);
    let mut line = Vec::new();
    loop {
        tokio::select! {
            read = from_bridge.read_until(b'\n', &mut line) => {
                if !matches!(read, Ok(1..)) || !line.ends_with(b"\n") {
                    break;
                }
                line.pop();
                let message = Bytes::from(std::mem::take(&mut line));
                if take(link, &mut under_way, message, &lines).await.is_err() {
                    break;
                }
            }
            Some(ended) = under_way.tasks.join_next() => match ended {
                Ok(End::Answered(id)) => drop(under_way.cancellations.remove(&id)),
                Ok(End::Silent) => {}
                Ok(End::Fatal) | Err(_) => break,
            }
        }
    }
}

/// Sends one line on its way.
async fn take(
    link: &Arc<Link>,
    under_way: &mut UnderWay,
    message: Bytes,
    lines: &mpsc::Sender<Bytes>,
) -> Result<(), Trouble> {
    let handshake;
    let id = match Outgoing::read(&message) {
        Some(Outgoing::Initialize { id }) => {
            handshake = true;
            id
        }
        Some(Outgoing::Request { id }) => {
            handshake = false;
            id
        }
        Some(Outgoing::Cancelled { id }) => {
            if let Some(request) = under_way.cancellations.remove(&id) {
                request.cancel();
            }
            return under_way.queue(message).await;
        }
        Some(Outgoing::Initialized) => {
            let told = tell(link, message).await;
            link.confirmed.cancel();
            return told;
        }
        Some(Outgoing::OneWay) => return under_way.queue(message).await,
        None => return Ok(()),
    };
    let cancelled = CancellationToken::new();
    under_way.cancellations.insert(id.clone(), cancelled.clone());
    let request = Request { message, id, handshake };
    under_way
        .tasks
        .spawn(ask(Arc::clone(link), request, cancelled, lines.clone()));
    Ok(())
}

impl UnderWay {
    /// Fails once the session is lost.
    async fn queue(&self, message: Bytes) -> Result<(), Trouble> {
        self.messages.send(message).await.map_err(|_| Trouble::Lost(None))
    }
}

async fn tell_all(link: Arc<Link>, mut messages: mpsc::Receiver<Bytes>) -> End {
    while let Some(message) = messages.recv().await {
        if tell(&link, message).await.is_err() {
            return End::Fatal;
        }
    }
    End::Silent
}

/// Sends what needs no answer. That it did not arrive is logged and nothing else, unless the session is lost.
async fn tell(link: &Arc<Link>, message: Bytes) -> Result<(), Trouble> {
    let told = timeout(ACCEPTANCE, link.tell(message)).await;
    match told {
        Ok(Ok(())) => Ok(()),
        Ok(Err(trouble)) => {
            tracing::warn!(session = %link.tag, reason = trouble.describe(), "the server did not take a message");
            if trouble.is_final() { Err(trouble) } else { Ok(()) }
        }
        Err(_elapsed) => {
            tracing::warn!(session = %link.tag, "the server did not take a message in time");
            Ok(())
        }
    }
}

async fn ask(link: Arc<Link>, request: Request, cancelled: CancellationToken, lines: mpsc::Sender<Bytes>) -> End {
    let outcome = tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(Trouble::Cancelled),
        outcome = link.ask(&request, &lines) => outcome,
    };
    if let Err(trouble) = outcome {
        if !matches!(trouble, Trouble::Cancelled) {
            tracing::warn!(session = %link.tag, reason = trouble.describe(), "a request got no answer of the server");
        }
        if request.handshake {
            return End::Fatal;
        }
        // Fails only when the bridge has hung up, and then nobody waits.
        let _ = lines.send(message::error(&request.id, trouble.for_client())).await;
        if trouble.is_final() {
            return End::Fatal;
        }
    }
    End::Answered(request.id)
}

async fn listen(link: Arc<Link>, listeners: watch::Receiver<usize>, lines: mpsc::Sender<Bytes>) -> End {
    match link.listen(listeners, &lines).await {
        Ok(()) => End::Silent,
        Err(trouble) => {
            tracing::warn!(session = %link.tag, reason = trouble.describe(), "the server's own messages are lost");
            End::Fatal
        }
    }
}

async fn write(mut to_bridge: WriteHalf<DuplexStream>, mut lines: mpsc::Receiver<Bytes>) -> End {
    while let Some(line) = lines.recv().await {
        if to_bridge.write_all(&line).await.is_err() {
            return End::Fatal;
        }
    }
    End::Silent
}
