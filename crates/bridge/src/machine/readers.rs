//! Clients that attach to streams, resume them, and detach.
//!
//! A client that disconnects cancels nothing (MCP 2025-11-25, "Sending Messages to the Server",
//! point 6). If it has an event id, messages of its stream gather until it resumes; once nothing
//! more can come, the stream expires. A client that resumes too late, or at a later instance of the
//! conversation, gets an error for its request at once, because on an HTTP error status it would
//! only retry. No stream needs a server.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::StateMachine;
use crate::{
    dropped::DropReason,
    error::RejectReason,
    streams::{EventId, Reader, StreamEvent, StreamId, StreamMessageKind},
    tables::timers::Timer,
};

impl StateMachine {
    /// Opens a stream for messages without a request.
    ///
    /// # Errors
    ///
    /// [`RejectReason::TooManyRequests`].
    pub(crate) fn listen(&mut self, now: Instant) -> Result<Reader, RejectReason> {
        self.check_room(0)?;
        let (reader, placed) = self.streams.open_listener();
        self.questions_placed(now, reader.stream, &placed);
        Ok(reader)
    }

    /// Resumes a stream behind an event. If the stream is gone or belongs to another instance, its
    /// requests get errors; without requests the client gets a new stream.
    ///
    /// # Errors
    ///
    /// [`RejectReason::StreamComplete`] and [`RejectReason::TooManyRequests`].
    pub(crate) fn resume(&mut self, now: Instant, from: &EventId) -> Result<Reader, RejectReason> {
        if from.is_final {
            return Err(RejectReason::StreamComplete);
        }
        self.check_room(0)?;
        if let Some((reader, placed)) = self.streams.resume(from) {
            self.timers.cancel(&Timer::Stream(reader.stream));
            self.questions_placed(now, reader.stream, &placed);
            return Ok(reader);
        }
        let ids = from.requests.ids();
        if ids.is_empty() {
            return self.listen(now);
        }
        let reader = self.streams.open_response_only(from.requests.clone(), ids.len());
        for id in ids {
            self.count(DropReason::NotReplayable);
            self.fail(
                reader.stream,
                &id,
                "the response to this request is no longer available",
            );
        }
        Ok(reader)
    }

    /// The next event for a reader; `None` once its stream has ended.
    pub(crate) fn poll_event(&mut self, reader: Reader, context: &Context<'_>) -> Poll<Option<StreamEvent>> {
        let polled = self.streams.poll_event(reader, context);
        self.note_stream_changes();
        polled
    }

    /// Detaches a reader and routes its unread messages again.
    pub(crate) fn detach_reader(&mut self, now: Instant, reader: Reader) {
        for message in self.streams.detach(reader) {
            match message.kind {
                StreamMessageKind::Response => self.count(DropReason::ClientGone),
                StreamMessageKind::RequestNotification => {}
                StreamMessageKind::Notification => {
                    self.streams.route(message);
                }
                StreamMessageKind::Question(number) => {
                    let routed = self.streams.route(message);
                    self.question_routed(now, number, &routed);
                }
            }
        }
        self.drop_if_waiting(reader.stream);
        self.client_left(now, reader.stream);
        self.schedule_expiry(now, reader.stream);
        self.note_stream_changes();
    }

    /// Starts the expiry of a stream that only waits for its client to resume it.
    pub(super) fn schedule_expiry(&mut self, now: Instant, stream: StreamId) {
        let timer = Timer::Stream(stream);
        if self.streams.is_retained(stream) && !self.timers.contains(&timer) {
            self.timers.set(timer, now + self.config.replay_time);
        }
    }

    /// Removes a stream that its client has not resumed in time.
    pub(super) fn expire(&mut self, stream: StreamId) {
        for message in self.streams.expire(stream) {
            if message.kind == StreamMessageKind::Response {
                self.count(DropReason::ClientGone);
            }
        }
    }

    /// Removes a stream whose calls go on on another one.
    pub(super) fn discard(&mut self, stream: StreamId) {
        self.timers.cancel(&Timer::Stream(stream));
        self.streams.discard(stream);
        self.note_stream_changes();
    }

    /// A client that leaves while its call waits for a server, and that has no event id, gives the
    /// call up: no server has it. Those of 2026-07-28 do so wherever the call is.
    fn drop_if_waiting(&mut self, stream: StreamId) {
        if self.streams.exists(stream) || self.modern.is_some() {
            return;
        }
        let of_stream = self.calls.waiting().into_iter();
        let of_stream = of_stream.filter(|number| self.calls.get(*number).is_some_and(|call| call.stream == stream));
        for number in of_stream.collect::<Vec<_>>() {
            self.take_call(number);
        }
    }
}
