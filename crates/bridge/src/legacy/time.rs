//! Time and the end: what is given up because it takes too long, or because there is nobody left to wait for.

use tokio::time::Instant;

use super::{Due, ENDED, Legacy, Life};
use crate::rpc;

impl Legacy {
    /// When [`tick`](Self::tick) has something to do next.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Gives up whatever has waited for too long.
    pub(crate) fn tick(&mut self, now: Instant) {
        while self.next_due().is_some_and(|at| at <= now) {
            let Some((_, due)) = self.due.pop_first() else {
                return;
            };
            match due {
                Due::Request(number) => self.give_up(now, number),
                Due::Ask(key) => {
                    self.refuse_ask(&key, rpc::TIMED_OUT, "no client has answered in time");
                }
                Due::Stream(stream) => self.forget(stream),
            }
        }
        self.take_note();
    }

    /// The server takes no more messages.
    pub(crate) fn deafen(&mut self) {
        if self.life == Life::Open {
            self.life = Life::Deaf;
            self.outbox.clear();
        }
    }

    /// The stream has ended: whatever waits gets its error, and every stream ends.
    pub(crate) fn end(&mut self, now: Instant) {
        self.life = Life::Ended;
        self.outbox.clear();
        self.asks.clear();
        self.due.clear();
        self.idle.clear();
        for entry in self.table.take_all() {
            if self.outbox.is_unread(entry.line) {
                self.note_unread(entry.stream);
            }
            self.deliver(now, &entry, |id| rpc::error(id, rpc::UNAVAILABLE, ENDED));
        }
        self.streams.end_listeners();
    }

    /// Whether the stream has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.life == Life::Ended
    }

    fn give_up(&mut self, now: Instant, number: u64) {
        let cancelled = self.table.is_cancelled(number);
        if self.handshake.is_asked(number) {
            self.handshake.given_up();
        } else if !cancelled {
            // A timeout ends with a cancellation (MCP 2025-11-25, "Timeouts").
            self.tell_server(rpc::cancelled(number, "the request has timed out"));
        }
        self.settle(now, number, |id| {
            if cancelled {
                rpc::error(id, rpc::UNAVAILABLE, "the request was cancelled")
            } else {
                rpc::error(
                    id,
                    rpc::TIMED_OUT,
                    "the MCP server of this session did not answer in time",
                )
            }
        });
    }
}
