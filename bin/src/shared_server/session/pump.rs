//! Connects a session with the byte stream of a bridge: lines go out as HTTP requests, responses
//! are written as lines.
//!
//! Requests run concurrently. Messages without a response are sent one after the other in the
//! client's order, and no request waits for them, except for `notifications/initialized`: the
//! server accepts it before anything else is read. The bridge limits the requests in flight; it
//! also cancels those that take too long, and a cancelled request ends here before the server
//! receives the cancellation.
//!
//! A server that cannot be reached for the handshake is like a child that does not start: the
//! stream ends. Later that is an error of the request, and the stream continues.

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

use super::{SharedServerSession, responses::PendingRequest};
use crate::shared_server::{
    error::SharedServerError,
    message::{self, OutgoingMessage},
};

/// Lines that wait for the bridge to read. A full queue stops the reading of responses.
const LINE_QUEUE: usize = 16;

/// Messages without a response that wait for the server. A full queue stops the reading of the
/// bridge.
const NOTIFICATION_QUEUE: usize = 16;

/// The time in which the server must accept a message without a response.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(30);

enum TaskEnd {
    /// The request with this id has its response.
    Responded(String),
    /// The task has nothing more to do.
    Finished,
    /// The session cannot continue.
    Fatal,
}

/// The tasks of a pump. Dropping them ends all that is in progress.
struct PumpTasks {
    running: JoinSet<TaskEnd>,
    /// Ends the request with this id.
    cancellations: HashMap<String, CancellationToken>,
    /// The queue of messages without a response.
    notifications: mpsc::Sender<Bytes>,
}

/// Runs a session over a byte stream until either end closes, and ends the session at the server.
///
/// `listeners` counts the client's open streams for messages of the server; `closing` stops the
/// pump at any point. Dropping the future ends all that is in progress, but not the session at the
/// server.
pub(crate) fn pump(
    session: Arc<SharedServerSession>,
    io: DuplexStream,
    listeners: watch::Receiver<usize>,
    closing: CancellationToken,
) -> BoxFuture<'static, ()> {
    // Boxed, since a session that is reopened pumps a second one.
    Box::pin(async move {
        closing.run_until_cancelled(run(&session, io, listeners)).await;
        session.end().await;
    })
}

async fn run(session: &Arc<SharedServerSession>, io: DuplexStream, listeners: watch::Receiver<usize>) {
    let (from_bridge, to_bridge) = split(io);
    let (lines, written) = mpsc::channel(LINE_QUEUE);
    let (notifications, queued) = mpsc::channel(NOTIFICATION_QUEUE);
    let mut tasks = PumpTasks {
        running: JoinSet::new(),
        cancellations: HashMap::new(),
        notifications,
    };
    tasks.running.spawn(write_lines(to_bridge, written));
    tasks.running.spawn(send_notifications(Arc::clone(session), queued));
    tasks
        .running
        .spawn(listen(Arc::clone(session), listeners, lines.clone()));

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
                if tasks.dispatch(session, message, &lines).await.is_err() {
                    break;
                }
            }
            Some(ended) = tasks.running.join_next() => match ended {
                Ok(TaskEnd::Responded(id)) => drop(tasks.cancellations.remove(&id)),
                Ok(TaskEnd::Finished) => {}
                Ok(TaskEnd::Fatal) | Err(_) => break,
            }
        }
    }
}

impl PumpTasks {
    /// Starts to send a message of the bridge.
    async fn dispatch(
        &mut self,
        session: &Arc<SharedServerSession>,
        message: Bytes,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), SharedServerError> {
        let (id, handshake) = match OutgoingMessage::read(&message) {
            Some(OutgoingMessage::Initialize(id)) => (id, true),
            Some(OutgoingMessage::Request(id)) => (id, false),
            Some(OutgoingMessage::Cancelled(id)) => {
                if let Some(request) = self.cancellations.remove(&id) {
                    request.cancel();
                }
                return self.queue(message).await;
            }
            Some(OutgoingMessage::Initialized) => {
                let sent = notify(session, message).await;
                session.initialized.cancel();
                return sent;
            }
            Some(OutgoingMessage::NotificationOrResponse) => return self.queue(message).await,
            None => return Ok(()),
        };
        let cancelled = CancellationToken::new();
        self.cancellations.insert(id.clone(), cancelled.clone());
        let request = PendingRequest { message, id, handshake };
        self.running
            .spawn(respond(Arc::clone(session), request, cancelled, lines.clone()));
        Ok(())
    }

    /// Fails once the session is lost.
    async fn queue(&self, message: Bytes) -> Result<(), SharedServerError> {
        let sent = self.notifications.send(message).await;
        sent.map_err(|_| SharedServerError::SessionLost(None))
    }
}

async fn send_notifications(session: Arc<SharedServerSession>, mut queued: mpsc::Receiver<Bytes>) -> TaskEnd {
    while let Some(message) = queued.recv().await {
        if notify(&session, message).await.is_err() {
            return TaskEnd::Fatal;
        }
    }
    TaskEnd::Finished
}

/// Sends a message without a response. A failure is only logged, unless the session is lost.
async fn notify(session: &Arc<SharedServerSession>, message: Bytes) -> Result<(), SharedServerError> {
    match timeout(NOTIFICATION_TIMEOUT, session.notify(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(session = %session.tag, reason = error.describe(), "notification not delivered to the shared MCP server");
            if error.is_final() { Err(error) } else { Ok(()) }
        }
        Err(_elapsed) => {
            tracing::warn!(session = %session.tag, "notification to the shared MCP server timed out");
            Ok(())
        }
    }
}

async fn respond(
    session: Arc<SharedServerSession>,
    request: PendingRequest,
    cancelled: CancellationToken,
    lines: mpsc::Sender<Bytes>,
) -> TaskEnd {
    let outcome = tokio::select! {
        biased;
        () = cancelled.cancelled() => Err(SharedServerError::Cancelled),
        outcome = session.request(&request, &lines) => outcome,
    };
    if let Err(error) = outcome {
        if !matches!(error, SharedServerError::Cancelled) {
            tracing::warn!(session = %session.tag, reason = error.describe(), "request to the shared MCP server failed");
        }
        if request.handshake {
            return TaskEnd::Fatal;
        }
        // Fails only if the bridge is closed, and then no request waits.
        let _ = lines.send(message::error_line(&request.id, error.for_client())).await;
        if error.is_final() {
            return TaskEnd::Fatal;
        }
    }
    TaskEnd::Responded(request.id)
}

async fn listen(
    session: Arc<SharedServerSession>,
    listeners: watch::Receiver<usize>,
    lines: mpsc::Sender<Bytes>,
) -> TaskEnd {
    match session.listen(listeners, &lines).await {
        Ok(()) => TaskEnd::Finished,
        Err(error) => {
            tracing::warn!(session = %session.tag, reason = error.describe(), "cannot receive messages of the server");
            TaskEnd::Fatal
        }
    }
}

async fn write_lines(mut to_bridge: WriteHalf<DuplexStream>, mut lines: mpsc::Receiver<Bytes>) -> TaskEnd {
    while let Some(line) = lines.recv().await {
        if to_bridge.write_all(&line).await.is_err() {
            return TaskEnd::Fatal;
        }
    }
    TaskEnd::Finished
}
