//! Timeouts, and the end of the stream: everything that waits gets its error.

use tokio::time::Instant;

use super::{LinkState, StateMachine, timers::Timer};
use crate::{error::RejectReason, jsonrpc};

impl StateMachine {
    /// The time of the next [`run_timers`](Self::run_timers).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn run_timers(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Request(number) => self.time_out(now, number),
                Timer::ServerRequest(key) => {
                    self.reject_server_request(&key, jsonrpc::TIMED_OUT, "no client answered in time");
                }
                Timer::Stream(stream) => self.expire(stream),
            }
        }
        self.note_stream_changes();
    }

    /// The server accepts no more messages.
    pub(crate) fn close_write(&mut self) {
        if self.link == LinkState::Open {
            self.link = LinkState::WriteClosed;
            self.outbox.clear();
        }
    }

    /// The stream has ended: fails everything that waits and ends every stream.
    pub(crate) fn end(&mut self, now: Instant) {
        self.link = LinkState::Ended;
        self.outbox.clear();
        self.server_requests.clear();
        self.timers.clear();
        let ended = RejectReason::ServerEnded.to_string();
        for request in self.in_flight.take_all() {
            if self.outbox.is_unwritten(request.line) {
                self.mark_not_processed(request.stream);
            }
            self.respond_to_client(now, &request, |id| jsonrpc::error(id, jsonrpc::UNAVAILABLE, &ended));
        }
        self.streams.end_listeners();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.link == LinkState::Ended
    }

    fn time_out(&mut self, now: Instant, number: u64) {
        let Some(request) = self.in_flight.take(number) else {
            return;
        };
        if self.handshake.is_pending(number) {
            self.handshake.abort();
        } else if !request.cancelled {
            // A timeout ends with a cancellation (MCP 2025-11-25, "Timeouts").
            self.send_own(jsonrpc::cancelled(number, "the request timed out"));
        }
        let (code, why) = if request.cancelled {
            (jsonrpc::UNAVAILABLE, "the request was cancelled")
        } else {
            (
                jsonrpc::TIMED_OUT,
                "the MCP server of this session did not answer in time",
            )
        };
        self.respond_to_client(now, &request, |id| jsonrpc::error(id, code, why));
    }
}
