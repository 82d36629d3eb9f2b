//! The legacy era (MCP up to 2025-11-25, with handshakes and sessions) as one synchronous state
//! machine.
//!
//! Client messages, server messages, time and the end of the stream go in as calls; lines for the
//! server come out of [`outbox`](StateMachine::outbox), events for clients out of
//! [`streams`](StateMachine::streams). There is no io, and time is an argument, so a test can
//! replay any schedule.
//!
//! Invariants:
//! - An accepted request gets exactly one response on its own stream: the server's, or one error of
//!   the bridge.
//! - Any other server message goes to at most one stream.
//! - Every request in flight, in either direction, and every retained stream has exactly one timer.
//!
//! This file accepts client messages, `batch` those in arrays. `readers` attaches and detaches
//! clients, `server_messages` and `server_requests` handle the server's messages, `timeouts`
//! handles timers and the end.
//!
//! Out of scope: requests with the `_meta` of 2026-07-28, which belong to another era.

mod batch;
mod client_settings;
mod handshake;
mod in_flight;
mod readers;
mod server_messages;
mod server_requests;
mod snapshot;
#[cfg(test)]
mod tests;
mod timeouts;
mod timers;

use std::{
    collections::{BTreeSet, HashMap},
    hash::{BuildHasher, RandomState},
};

use tokio::time::Instant;

pub use self::snapshot::Snapshot;
pub(crate) use self::{
    batch::split_batch,
    handshake::{SUPPORTED, error_code, result_version, unsupported_version},
};
use self::{
    client_settings::ClientSetting,
    handshake::Handshake,
    in_flight::{InFlight, InFlightRequest},
    timers::{Timer, Timers},
};
use crate::{
    config::Config,
    dropped::DropReason,
    error::RejectReason,
    jsonrpc::{self, Envelope, Id, MessageKind, RequestKey, json},
    link::outbox::Outbox,
    streams::{Reader, RequestIds, StreamId, Streams},
};

/// The state machine of one bridge.
#[derive(Debug)]
pub(crate) struct StateMachine {
    config: Config,
    link: LinkState,
    in_flight: InFlight,
    /// The open requests of the server. Their ids stay as they are, because one server and one
    /// client share a bridge.
    server_requests: HashMap<RequestKey, Id>,
    pub(crate) handshake: Handshake,
    timers: Timers,
    /// The streams of failed requests that the server cannot have read, until their exchanges ask.
    not_processed: BTreeSet<StreamId>,
    /// The streams toward clients, for their readers to poll.
    pub(crate) streams: Streams,
    /// The lines toward the server, for the link to write.
    pub(crate) outbox: Outbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkState {
    /// Messages pass in both directions.
    Open,
    /// The server accepts no more messages; its own may still arrive.
    WriteClosed,
    /// No message passes.
    Ended,
}

impl StateMachine {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            link: LinkState::Open,
            in_flight: InFlight::default(),
            server_requests: HashMap::new(),
            handshake: Handshake::default(),
            timers: Timers::default(),
            not_processed: BTreeSet::new(),
            // The epoch distinguishes this bridge from earlier and later ones; it is not a secret.
            streams: Streams::new(RandomState::new().hash_one("epoch"), config.clone()),
            outbox: Outbox::new(config.outgoing),
            config,
        }
    }

    /// Accepts a request. Its response, and messages before it, will be on the stream.
    ///
    /// # Errors
    ///
    /// [`RejectReason::IdInFlight`], [`RejectReason::TooManyRequests`],
    /// [`RejectReason::InitializeTooLarge`] and [`RejectReason::Initializing`].
    pub(crate) fn request(
        &mut self,
        now: Instant,
        mut message: Envelope,
        id: Id,
        method: &str,
    ) -> Result<Reader, RejectReason> {
        if self.in_flight.contains(id.key()) {
            return Err(RejectReason::IdInFlight);
        }
        self.check_room(1)?;
        let requests = RequestIds::new([&id]);
        if method != "initialize" || self.link != LinkState::Open {
            let (reader, placed) = self.streams.open_exchange(requests, 1);
            self.forward(now, &message, id, method, reader.stream);
            self.server_requests_placed(now, &placed);
            return Ok(reader);
        }
        // No other message may go to the stream: there is no session before the handshake.
        if let Some(result) = self.handshake.result() {
            let reader = self.streams.open_response_only(requests, 1);
            self.streams.respond(reader.stream, jsonrpc::result(id.raw(), result));
            return Ok(reader);
        }
        if self.handshake.is_in_progress() {
            return Err(RejectReason::Initializing);
        }
        if handshake::is_too_large(&message) {
            return Err(RejectReason::InitializeTooLarge);
        }
        handshake::lower_version(&mut message);
        let reader = self.streams.open_response_only(requests, 1);
        self.forward(now, &message, id, method, reader.stream);
        Ok(reader)
    }

    /// Replays a recorded handshake to a fresh server. The stream will carry the response and
    /// nothing else. `None` if the snapshot is unusable.
    pub(crate) fn replay_handshake(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Reader> {
        let message = snapshot.initialize(&self.in_flight.next_number().to_string())?;
        self.send_own_request(now, &message)
    }

    /// Confirms a replayed handshake and replays the recorded settings. Each stream will carry one
    /// response.
    pub(crate) fn replay_settings(&mut self, now: Instant, snapshot: &Snapshot) -> Vec<Reader> {
        self.handshake.confirm();
        self.send_own(jsonrpc::initialized());
        let settings = snapshot.settings();
        let mut readers = Vec::new();
        for setting in settings.iter() {
            let text = setting.request(&self.in_flight.next_number().to_string());
            let message = Envelope::parse(text.as_bytes()).ok();
            readers.extend(message.and_then(|message| self.send_own_request(now, &message)));
        }
        readers
    }

    /// Accepts a notification of a client.
    ///
    /// # Errors
    ///
    /// [`RejectReason::ServerNotReading`] and [`RejectReason::ServerEnded`].
    pub(crate) fn notify(&mut self, now: Instant, message: Envelope, method: &str) -> Result<(), RejectReason> {
        if self.link != LinkState::Open {
            return Err(RejectReason::ServerEnded);
        }
        if method == "notifications/cancelled" {
            self.cancel(now, message);
            return Ok(());
        }
        let initialized = method == "notifications/initialized";
        // A client whose `initialize` was answered from the record confirms again.
        if initialized && self.handshake.is_confirmed() {
            return Ok(());
        }
        if !self.outbox.push(message.into_line()) {
            return Err(RejectReason::ServerNotReading);
        }
        if initialized {
            self.handshake.confirm();
        }
        Ok(())
    }

    /// Accepts the response of a client to a server request.
    ///
    /// # Errors
    ///
    /// [`RejectReason::ServerNotReading`] and [`RejectReason::ServerEnded`].
    pub(crate) fn respond(&mut self, message: &Envelope, id: Option<&Id>) -> Result<(), RejectReason> {
        if self.link != LinkState::Open {
            return Err(RejectReason::ServerEnded);
        }
        let Some(server_id) = id.and_then(|id| self.server_requests.get(id.key())) else {
            self.count(DropReason::UnmatchedClientMessage);
            return Ok(());
        };
        if !self.outbox.push(message.with_id(server_id.raw())) {
            return Err(RejectReason::ServerNotReading);
        }
        let key = server_id.key().clone();
        self.take_server_request(&key);
        Ok(())
    }

    /// True if the server ended and cannot have read any part of the request of this stream. Only
    /// the first call for a stream tells.
    pub(crate) fn take_not_processed(&mut self, stream: StreamId) -> bool {
        self.not_processed.remove(&stream)
    }

    fn cancel(&mut self, now: Instant, mut message: Envelope) {
        let id = message.param_id("requestId");
        let Some((number, request)) = id.and_then(|id| self.in_flight.by_key(id.key())) else {
            self.count(DropReason::UnmatchedClientMessage);
            return;
        };
        // A client must not cancel `initialize` (MCP 2025-11-25, "Cancellation").
        if self.handshake.is_pending(number) {
            return;
        }
        request.cancelled = true;
        self.timers
            .set_at_most(Timer::Request(number), now + self.config.cancel_grace);
        message.set_param("requestId", &number.to_string());
        self.send_own(message.into_line());
    }

    /// Sends a request to the server, or puts an error on its stream.
    fn forward(&mut self, now: Instant, message: &Envelope, id: Id, method: &str, stream: StreamId) {
        if self.link != LinkState::Open {
            self.mark_not_processed(stream);
            self.fail(stream, &id, &RejectReason::ServerEnded.to_string());
            return;
        }
        let number = self.in_flight.next_number();
        if !self.outbox.push(message.with_id(&number.to_string())) {
            self.fail(stream, &id, &RejectReason::ServerNotReading.to_string());
            return;
        }
        if method == "initialize" {
            self.handshake.begin(number, message);
        }
        let number = self.in_flight.insert(InFlightRequest {
            id,
            stream,
            token: progress_token(message),
            line: self.outbox.last_number(),
            cancelled: false,
            setting: ClientSetting::of(method, message),
        });
        self.timers
            .set(Timer::Request(number), now + self.config.request_timeout);
    }

    fn fail(&mut self, stream: StreamId, id: &Id, why: &str) {
        let error = jsonrpc::error(id.raw(), jsonrpc::UNAVAILABLE, why);
        self.streams.respond(stream, error);
    }

    fn mark_not_processed(&mut self, stream: StreamId) {
        // Without a reader no exchange asks.
        if !self.streams.is_attached(stream) {
            return;
        }
        // A client that leaves now does not ask either, so there is a limit: that of requests in
        // flight.
        if self.not_processed.len() >= self.config.max_in_flight {
            self.not_processed.pop_first();
        }
        self.not_processed.insert(stream);
    }

    fn send_own_request(&mut self, now: Instant, message: &Envelope) -> Option<Reader> {
        let MessageKind::Request { id, method } = message.kind().clone() else {
            return None;
        };
        let reader = self.streams.open_response_only(RequestIds::default(), 1);
        self.forward(now, message, id, &method, reader.stream);
        Some(reader)
    }

    /// Checks that so many more requests fit.
    fn check_room(&self, requests: usize) -> Result<(), RejectReason> {
        let max = self.config.max_in_flight;
        let full = self.in_flight.len().saturating_add(requests) > max
            || self.streams.count_attached() >= max.saturating_add(self.config.max_listeners);
        if full {
            Err(RejectReason::TooManyRequests)
        } else {
            Ok(())
        }
    }

    fn count(&self, reason: DropReason) {
        self.config.drop_counts.count(reason);
    }
}

fn progress_token(message: &Envelope) -> Option<RequestKey> {
    let meta = message.param("_meta")?;
    Some(Id::parse(&meta[json::member(meta, "progressToken")?])?.key().clone())
}
