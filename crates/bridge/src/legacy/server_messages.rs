//! Messages of the server, and messages that the bridge sends to it.
//!
//! A response finds its request by the number under which the request was sent. The bridge counts
//! and drops a message that matches nothing.

use bytes::Bytes;
use tokio::time::Instant;

use super::{LinkState, StateMachine, in_flight::InFlightRequest, timers::Timer, unsupported_version};
use crate::{
    dropped::DropReason,
    jsonrpc::{self, Envelope, Id, MessageKind},
    streams::{StreamMessage, StreamMessageKind},
};

/// A response of up to this size, in bytes, always fits, because its error would be as large.
const SMALL_RESPONSE: usize = 1024;

pub(super) const CLIENT_NOT_READING: &str = "too many messages wait for the client";

impl StateMachine {
    pub(crate) fn receive(&mut self, now: Instant, message: Envelope) {
        if self.link == LinkState::Ended {
            return;
        }
        match message.kind().clone() {
            MessageKind::Response { id, error } => self.on_response(now, &message, id.as_ref(), error),
            MessageKind::Request { id, .. } => self.on_request(now, id, message),
            MessageKind::Notification { method } => self.on_notification(message, &method),
        }
        self.note_stream_changes();
    }

    pub(crate) fn response_too_long(&mut self, now: Instant, number: u64) {
        if self.handshake.is_pending(number) {
            self.handshake.abort();
        }
        self.complete(now, number, |id| {
            jsonrpc::error(id, jsonrpc::UNAVAILABLE, "the response of the MCP server is too long")
        });
        self.note_stream_changes();
    }

    fn on_response(&mut self, now: Instant, message: &Envelope, id: Option<&Id>, error: bool) {
        let number = id.and_then(Id::number);
        let Some((number, request)) = number.and_then(|number| Some((number, self.in_flight.get_mut(number)?))) else {
            self.count(DropReason::UnmatchedResponse);
            return;
        };
        if let Some(setting) = request.setting.take()
            && !error
            && !self.handshake.apply_setting(setting, self.config.max_subscriptions)
        {
            self.count(DropReason::SettingLost);
        }
        let mut too_new = None;
        if self.handshake.is_pending(number) {
            too_new = self.handshake.complete(error, message.outcome());
        }
        let delivered = self.complete(now, number, |id| match &too_new {
            None => message.with_id(id),
            Some(version) => jsonrpc::error_with(
                Some(id),
                jsonrpc::INVALID_PARAMS,
                "the server negotiated an unsupported protocol version",
                Some(&unsupported_version(version)),
            ),
        });
        if !delivered {
            self.count(DropReason::ClientGone);
        }
    }

    fn on_notification(&mut self, message: Envelope, method: &str) {
        let mut kind = StreamMessageKind::Notification;
        match method {
            "notifications/progress" => {
                if let Some(token) = message.param_id("progressToken") {
                    let stream = self.in_flight.stream_of_token(token.key());
                    if stream.is_some_and(|stream| self.streams.notify(stream, message.clone().into_line())) {
                        return;
                    }
                    kind = StreamMessageKind::Progress(token.key().clone());
                }
            }
            "notifications/cancelled" => {
                let id = message.param_id("requestId");
                let cancelled = id.and_then(|id| self.take_server_request(id.key()));
                if cancelled.is_some_and(|id| self.streams.withdraw(id.key())) {
                    return;
                }
            }
            _other => {}
        }
        let line = message.into_line();
        self.streams.route(StreamMessage { kind, line });
    }

    /// Sends a message of the bridge itself.
    pub(super) fn send_own(&mut self, line: Bytes) {
        if self.link == LinkState::Open && !self.outbox.push_own(line) {
            self.count(DropReason::ServerNotReading);
        }
    }

    /// Completes a request in flight with a response, which is made for the id of the client.
    /// `false` if the client is gone.
    fn complete(&mut self, now: Instant, number: u64, response: impl FnOnce(&str) -> Bytes) -> bool {
        let Some(request) = self.in_flight.take(number) else {
            return false;
        };
        self.timers.cancel(&Timer::Request(number));
        self.respond_to_client(now, &request, response)
    }

    pub(super) fn respond_to_client(
        &mut self,
        now: Instant,
        request: &InFlightRequest,
        response: impl FnOnce(&str) -> Bytes,
    ) -> bool {
        let id = request.id.raw();
        let mut line = response(id);
        if line.len() > SMALL_RESPONSE && !self.streams.has_room(request.stream, line.len()) {
            self.count(DropReason::ClientNotReading);
            line = jsonrpc::error(id, jsonrpc::UNAVAILABLE, CLIENT_NOT_READING);
        }
        let delivered = self.streams.respond(request.stream, line);
        self.schedule_expiry(now, request.stream);
        delivered
    }

    /// Counts dropped notifications, and cancels the timers of removed streams.
    pub(super) fn note_stream_changes(&mut self) {
        for _ in 0..self.streams.take_dropped() {
            self.count(DropReason::BacklogFull);
        }
        for stream in self.streams.take_removed() {
            self.timers.cancel(&Timer::Stream(stream));
        }
    }
}
