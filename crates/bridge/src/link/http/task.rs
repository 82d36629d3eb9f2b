//! The task of a link over HTTP: messages go out as requests, responses and events come in. For a
//! server of 2026-07-28, `modern` does that.
//!
//! Requests run concurrently. Messages without a response are sent one after the other in the
//! client's order, and no request waits for them, except for `notifications/initialized`: the
//! server accepts it before anything else is sent. The conversation limits the requests in flight;
//! it also cancels those that take too long, and a cancelled request ends here before the server
//! receives the cancellation.
//!
//! A server that cannot be reached for the handshake is like a child that does not start: the link
//! ends. Later that is an error of the request, and the link continues.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tracing::Instrument as _;

use super::{
    endpoint::Endpoint, modern, responses::PendingRequest, session::ServerSession, token::TokenSource,
    user::UserEndpoint,
};
use crate::{
    link::{LinkTask, era::ServerEra},
    machine::{OutgoingKind, OutgoingMessage},
};

/// Messages without a response that wait for the server. A full queue stops the sending of all
/// messages.
const NOTIFICATION_QUEUE: usize = 16;

/// The time in which the server must accept a message without a response.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(30);

/// The requests of a link in progress. Dropping it ends them.
struct Requests {
    session: Arc<ServerSession>,
    running: JoinSet<u64>,
    /// By their ids.
    handles: HashMap<u64, AbortHandle>,
    /// The queue of messages without a response.
    notifications: mpsc::Sender<Bytes>,
}

/// Runs until the link is closed or useless. The flag is set when the server does not behave as
/// its era says. Dropping the future ends all that is in progress, but not the session at the
/// server.
pub(crate) async fn run(
    link: LinkTask,
    endpoint: Arc<Endpoint>,
    tokens: Arc<dyn TokenSource>,
    era_refused: Arc<AtomicBool>,
) {
    let user = UserEndpoint::new(endpoint, tokens, era_refused);
    let era = tokio::select! {
        biased;
        () = link.closing.cancelled() => return,
        era = user.era() => era,
    };
    match era {
        Ok(ServerEra::Legacy) => run_session(link, user).await,
        Ok(ServerEra::Modern) => modern::run(&link, user).await,
        Err(error) => tracing::warn!(reason = error.describe(), "the MCP server cannot be used"),
    }
}

/// Runs until the link is closed or the session is lost, and then ends the session at the server.
async fn run_session(link: LinkTask, user: UserEndpoint) {
    let session = ServerSession::new(link.inbox.clone(), user);
    let (notifications, queued) = mpsc::channel(NOTIFICATION_QUEUE);
    let mut requests = Requests {
        session: Arc::clone(&session),
        running: JoinSet::new(),
        handles: HashMap::new(),
        notifications,
    };
    tokio::select! {
        biased;
        () = link.closing.cancelled() => tracing::debug!("link to the MCP server closed"),
        () = session.lost.cancelled() => tracing::debug!("session at the MCP server lost"),
        () = send_notifications(&session, queued) => {}
        () = session.listen() => {}
        () = requests.run(&link.output) => {}
    }
    requests.running.shutdown().await;
    // Nobody waits for the server by now.
    drop(link);
    session.end().await;
}

impl Requests {
    /// Sends the messages of the link. Returns after a panic.
    async fn run(&mut self, output: &Notify) {
        let inbox = self.session.inbox.clone();
        loop {
            while let Some(message) = inbox.shared.step(|machine| machine.take_message(inbox.number)) {
                self.send(message).await;
            }
            tokio::select! {
                () = output.notified() => {}
                Some(ended) = self.running.join_next() => match ended {
                    Ok(number) => drop(self.handles.remove(&number)),
                    Err(error) if error.is_cancelled() => {}
                    Err(_panicked) => return,
                },
            }
        }
    }

    /// Begins to send a message.
    async fn send(&mut self, message: OutgoingMessage) {
        let OutgoingMessage { line, kind } = message;
        match kind {
            OutgoingKind::Request { number, handshake } => {
                let request = PendingRequest {
                    line,
                    number,
                    handshake,
                };
                let response = respond(Arc::clone(&self.session), request);
                let handle = self.running.spawn(response.in_current_span());
                self.handles.insert(number, handle);
                return;
            }
            OutgoingKind::Initialized => {
                notify(&self.session, line).await;
                self.session.initialized.cancel();
                return;
            }
            OutgoingKind::Cancelled(number) => {
                if let Some(request) = self.handles.remove(&number) {
                    request.abort();
                    self.session.fail(number, "the request was cancelled");
                }
            }
            OutgoingKind::NotificationOrResponse => {}
        }
        // Fails only if the link ends.
        let _ = self.notifications.send(line).await;
    }
}

impl ServerSession {
    fn fail(&self, number: u64, why: &str) {
        self.inbox
            .shared
            .step(|machine| machine.fail_request(Instant::now(), self.inbox.number, number, why));
    }
}

async fn send_notifications(session: &Arc<ServerSession>, mut queued: mpsc::Receiver<Bytes>) {
    while let Some(message) = queued.recv().await {
        notify(session, message).await;
    }
}

/// Sends a message without a response. A failure is only logged, unless the session is lost.
async fn notify(session: &Arc<ServerSession>, message: Bytes) {
    match timeout(NOTIFICATION_TIMEOUT, session.notify(message)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(
                reason = error.describe(),
                "notification not delivered to the MCP server"
            );
            if error.is_final() {
                session.lost.cancel();
            }
        }
        Err(_elapsed) => tracing::warn!("notification to the MCP server timed out"),
    }
}

/// Sends a request. Returns its id at its end.
async fn respond(session: Arc<ServerSession>, request: PendingRequest) -> u64 {
    let number = request.number;
    if let Err(error) = session.request(&request).await {
        tracing::warn!(reason = error.describe(), "request to the MCP server failed");
        if error.is_final() {
            // The server has not acted on it: its call waits for another link.
            let (shared, link) = (&session.inbox.shared, session.inbox.number);
            shared.step(|machine| machine.mark_unread(link, number, request.line));
            session.lost.cancel();
        } else if request.handshake {
            session.lost.cancel();
        } else {
            session.fail(number, &error.for_client());
        }
    }
    number
}
