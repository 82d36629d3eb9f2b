//! Timeouts of calls, questions, tasks and retained streams.

use tokio::time::Instant;

use super::StateMachine;
use crate::{jsonrpc, tables::timers::Timer};

impl StateMachine {
    /// The time of the next [`run_timers`](Self::run_timers).
    #[cfg(test)]
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    pub(crate) fn run_timers(&mut self, now: Instant) {
        while let Some(timer) = self.timers.pop(now) {
            match timer {
                Timer::Call(number) => self.time_out(now, number),
                Timer::Question(number) => {
                    self.reject_question(number, jsonrpc::TIMED_OUT, "no client answered in time");
                }
                Timer::Stream(stream) => self.expire(stream),
                Timer::Gather(call) => self.ask_client(now, call),
                Timer::Round(round) => self.expire_outcome(round),
                Timer::Task(id) => {
                    self.tasks.remove(&id);
                    self.note_end();
                }
            }
        }
        self.note_stream_changes();
    }

    pub(super) fn time_out(&mut self, now: Instant, number: u64) {
        let pending_handshake = self.handshake.is_pending(number);
        let Some(call) = self.take_call(number) else { return };
        let parked = call.modern.as_ref().is_some_and(|modern| modern.is_parked());
        if let Some(link) = call.link().filter(|_| !pending_handshake && !call.cancelled) {
            // A timeout ends with a cancellation (MCP 2025-11-25, "Timeouts").
            let cancelled = jsonrpc::cancelled(&number.to_string(), "the request timed out");
            self.send_own(link, cancelled);
        }
        if parked {
            // No client waits, and the state of the next retry has expired.
            return;
        }
        let (code, why) = if call.cancelled {
            (jsonrpc::UNAVAILABLE, "the request was cancelled")
        } else {
            (
                jsonrpc::TIMED_OUT,
                "the MCP server of this session did not answer in time",
            )
        };
        self.respond_to_client(now, &call, |id| jsonrpc::error(id, code, why));
    }
}
