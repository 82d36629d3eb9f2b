//! The task of a link to a server of 2026-07-28: each request of the translator is one POST, and
//! its answer is JSON or an event stream for this request alone.
//!
//! There is no session at the server. Closing a response is the cancellation of its request. An
//! event stream that breaks off has lost its request, except for `subscriptions/listen`, which the
//! translator opens again; what may have changed meanwhile is then fetched. Notifications of the
//! client are not sent: the revision has none over HTTP, and no response either.
//!
//! A refusal that is no answer of this era (400, 404 or 405 without a response to the request) puts
//! the era of the server in doubt: the link ends, and the next one asks for it again.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::StatusCode;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    endpoint::{SessionHeaders, UpstreamRequest, has_media_type},
    error::HttpError,
    events::{SseReader, StreamPosition, read_body},
    mirrored,
    responses::is_response_to,
    user::UserEndpoint,
};
use crate::{
    dropped::DropReason,
    jsonrpc::{Envelope, MessageKind},
    link::{
        LinkTask,
        era::{EraAnswer, ServerEra},
        framing::Frame,
        translation::Translation,
    },
    machine::OutgoingKind,
};

/// Begins the messages of a `subscriptions/listen`.
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// The requests of a link in progress. Dropping it ends them.
struct Requests {
    exchange: Arc<Exchange>,
    running: JoinSet<u64>,
    /// By their ids.
    handles: HashMap<u64, AbortHandle>,
}

/// What each request needs.
struct Exchange {
    user: UserEndpoint,
    translation: Translation,
    /// Changes may have been missed.
    missed_changes: AtomicBool,
    /// Cancelled when the link cannot continue.
    lost: CancellationToken,
}

/// Runs until the link is closed or useless.
pub(super) async fn run(link: &LinkTask, user: UserEndpoint) {
    let exchange = Arc::new(Exchange {
        translation: Translation::new(link, &user.era_refused),
        user,
        missed_changes: AtomicBool::new(false),
        lost: CancellationToken::new(),
    });
    let mut requests = Requests {
        exchange: Arc::clone(&exchange),
        running: JoinSet::new(),
        handles: HashMap::new(),
    };
    tokio::select! {
        biased;
        () = link.closing.cancelled() => tracing::debug!("link to the MCP server closed"),
        () = exchange.lost.cancelled() => tracing::debug!("the MCP server cannot be used"),
        never = exchange.translation.run_timers() => match never {},
        () = requests.run(link) => {}
    }
    requests.running.shutdown().await;
}

impl Requests {
    /// Sends the requests of the translator. Returns after a panic.
    async fn run(&mut self, link: &LinkTask) {
        loop {
            while let Some(line) = self.exchange.translation.take_line() {
                self.send(line);
            }
            tokio::select! {
                () = link.output.notified() => {}
                Some(ended) = self.running.join_next() => match ended {
                    Ok(id) => drop(self.handles.remove(&id)),
                    Err(error) if error.is_cancelled() => {}
                    Err(_panicked) => return,
                },
            }
        }
    }

    fn send(&mut self, line: Bytes) {
        match OutgoingKind::of(&line) {
            OutgoingKind::Request { number: id, .. } => {
                let exchange = Arc::clone(&self.exchange);
                let request = async move {
                    exchange.request(id, line).await;
                    id
                };
                self.handles.insert(id, self.running.spawn(request.in_current_span()));
            }
            OutgoingKind::Cancelled(id) => {
                if let Some(request) = self.handles.remove(&id) {
                    request.abort();
                    self.exchange.translation.fail(id, "the request was cancelled");
                }
            }
            OutgoingKind::Initialized | OutgoingKind::NotificationOrResponse => {
                tracing::debug!("a notification of the client is not sent to the MCP server");
            }
        }
    }
}

impl Exchange {
    /// Sends a request, and passes its answer on.
    async fn request(self: &Arc<Self>, id: u64, line: Bytes) {
        let headers = mirrored::headers(&line);
        let method = Envelope::parse(&line).ok();
        let method = method.as_ref().and_then(Envelope::method).unwrap_or_default();
        let (is_discover, is_listen) = (method == "server/discover", method == "subscriptions/listen");
        let exchange = Arc::clone(self);
        let on_sent = Arc::new(move || exchange.translation.mark_sent(id));
        let request = UpstreamRequest::Mirrored(line, Some(on_sent), headers);
        let answered = self.answer(id, &request, is_discover).await;
        if is_listen {
            self.missed_changes.store(true, Ordering::Relaxed);
        }
        let Err(error) = answered else { return };
        tracing::warn!(reason = error.describe(), "request to the MCP server failed");
        let refused_era = matches!(
            error,
            HttpError::Refused(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
        );
        if is_discover {
            if refused_era && self.user.doubt_era_by_handshake(ServerEra::Modern).await {
                self.translation.mark_handshake_unread();
            }
            self.lost.cancel();
            return;
        }
        let refused_era = refused_era && self.user.doubt_era(ServerEra::Modern).await;
        self.translation.fail(id, &error.for_client());
        if refused_era {
            self.lost.cancel();
        }
    }

    /// # Errors
    ///
    /// Any [`HttpError`]; then there was no response.
    async fn answer(&self, id: u64, request: &UpstreamRequest, is_discover: bool) -> Result<(), HttpError> {
        let response = self.user.send(request, &SessionHeaders::default()).await?;
        let status = response.status();
        let limit = self.translation.inbox.config.max_line;
        if status.is_success() && has_media_type(&response, "text/event-stream") {
            let events = SseReader::new(response, limit, StreamPosition::default());
            return self.read_stream(id, events, is_discover).await;
        }
        if has_media_type(&response, "application/json") {
            let body = read_body(response, limit).await?;
            if let Ok(message) = Envelope::parse(&body)
                && is_response_to(&message, id)
            {
                return self.finish(message, is_discover).await;
            }
        }
        Err(if status.is_success() {
            HttpError::NotMcp
        } else {
            HttpError::Refused(status)
        })
    }

    async fn read_stream(&self, id: u64, mut events: SseReader, is_discover: bool) -> Result<(), HttpError> {
        while let Some(data) = events.next().await? {
            let Ok(message) = Envelope::parse(&data) else {
                if self.translation.receive(&Frame::Line(data.into())) == Some(id) {
                    return Ok(());
                }
                continue;
            };
            match message.kind() {
                MessageKind::Response { .. } if is_response_to(&message, id) => {
                    return self.finish(message, is_discover).await;
                }
                // The stream is for one request.
                MessageKind::Response { .. } => {
                    let counts = &self.translation.inbox.config.drop_counts;
                    counts.count(DropReason::UnmatchedResponse);
                }
                MessageKind::Notification { method } if &**method == ACKNOWLEDGED => {
                    self.translation.receive_message(&message);
                    if self.missed_changes.swap(false, Ordering::Relaxed) {
                        let inbox = &self.translation.inbox;
                        inbox.shared.step(|machine| machine.send_probes(inbox.number));
                    }
                }
                MessageKind::Notification { .. } | MessageKind::Request { .. } => {
                    self.translation.receive_message(&message);
                }
            }
        }
        Err(HttpError::BrokenOff)
    }

    /// Accepts the response to a request. That of a server of another era to `server/discover` is a
    /// refusal, if the server can be asked again.
    async fn finish(&self, response: Envelope, is_discover: bool) -> Result<(), HttpError> {
        if is_discover && self.may_doubt_era() {
            let message = serde_json::from_slice(&response.clone().into_line()).unwrap_or_default();
            if EraAnswer::of(&message) != EraAnswer::Modern {
                return Err(HttpError::Refused(StatusCode::NOT_FOUND));
            }
        }
        self.translation.receive_message(&response);
        Ok(())
    }

    fn may_doubt_era(&self) -> bool {
        self.user.endpoint.config.era.is_none() && !self.user.has_asked.load(Ordering::Relaxed)
    }
}
