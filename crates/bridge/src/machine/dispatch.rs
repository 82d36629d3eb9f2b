//! Sends calls to links, refuses those that get no server, and removes those that are replaced.

use tokio::time::Instant;

use super::{StateMachine, from_server};
use crate::{
    dropped::DropReason,
    error::{Refusal, RejectReason},
    jsonrpc::{self, Id},
    streams::StreamId,
    tables::{
        calls::Call,
        links::{LinkNumber, Replay},
        timers::Timer,
    },
};

impl StateMachine {
    /// Sends a waiting call to its link, or asks the owner for one.
    pub(super) fn dispatch(&mut self, now: Instant, number: u64) {
        if let Some(why) = self.closed.clone() {
            self.refuse_call(now, number, &why);
            return;
        }
        let (Some(call), Some(line)) = (self.calls.get(number), self.calls.line(number)) else {
            return;
        };
        let (stream, method) = (call.stream, call.method.clone());
        let of_task = method.starts_with("tasks/").then(|| self.link_of_task(&line)).flatten();
        let Some(link) = of_task.or(self.links.current()) else {
            self.requests.want = Some(self.links.newest());
            return;
        };
        let is_handshake = match &*method {
            "initialize" => true,
            "server/discover" => self.modern.is_some(),
            _other => false,
        };
        if is_handshake && let Some(result) = self.handshake.result().map(Box::<str>::from) {
            // The replay of the recorded handshake has brought the result.
            self.finish(now, number, |id| jsonrpc::result(id, &result));
            return;
        }
        self.confirm_replay(link);
        if self.modern.is_some() {
            self.before_modern_call(number, link);
        }
        let Some(entry) = self.links.get_mut(link) else { return };
        if !entry.outbox.push_call(line, number) {
            self.finish(now, number, |id| {
                jsonrpc::error(id, jsonrpc::UNAVAILABLE, &RejectReason::ServerNotReading.to_string())
            });
            return;
        }
        let line = entry.outbox.last_number();
        self.calls.place(number, link, line);
        self.timers.set(Timer::Call(number), now + self.config.request_timeout);
        self.assign(now, stream, link);
        if self.modern.is_some() {
            self.adopt_questions(now, number, link);
        }
    }

    /// Sends all waiting calls, oldest first.
    pub(super) fn dispatch_waiting(&mut self, now: Instant) {
        for number in self.calls.waiting() {
            self.dispatch(now, number);
        }
    }

    /// Notes the link that runs the request of a stream.
    pub(super) fn assign(&mut self, now: Instant, stream: StreamId, link: LinkNumber) {
        let placed = self.streams.assign(stream, link);
        self.questions_placed(now, stream, &placed);
    }

    /// Ends all calls that wait for a server.
    pub(crate) fn refuse(&mut self, now: Instant, why: &Refusal) {
        for number in self.calls.waiting() {
            self.refuse_call(now, number, why);
        }
    }

    /// Notes that calls may have been read. Those that must not be sent again lose their lines.
    pub(crate) fn mark_written(&mut self, link: LinkNumber) {
        let Some(entry) = self.links.get_mut(link) else { return };
        for number in entry.outbox.mark_written() {
            self.mark_call_written(number);
        }
    }

    pub(crate) fn mark_call_written(&mut self, number: u64) {
        let full = self.calls.kept_bytes() > self.config.outgoing.bytes;
        let Some(call) = self.calls.get_mut(number) else { return };
        if full || !call.repeatable {
            call.repeatable = false;
            self.calls.forget_line(number);
        }
    }

    /// Ends a call with a response, which is made for the id of the client. `false` if the client
    /// is gone.
    pub(super) fn finish(&mut self, now: Instant, number: u64, response: impl FnOnce(&str) -> bytes::Bytes) -> bool {
        let asked = self.calls.take_asked(number);
        let Some(call) = self.take_call(number) else {
            return false;
        };
        let delivered = self.respond_to_client(now, &call, response);
        self.hand_over_questions(now, &call, asked);
        delivered
    }

    /// Ends a cancelled call that no server will answer.
    pub(super) fn finish_cancelled(&mut self, now: Instant, number: u64) {
        self.finish(now, number, |id| {
            jsonrpc::error(id, jsonrpc::UNAVAILABLE, "the request was cancelled")
        });
    }

    /// Removes a call from the tables. It no longer keeps its server busy.
    pub(super) fn take_call(&mut self, number: u64) -> Option<Call> {
        let call = self.calls.take(number)?;
        self.timers.cancel(&Timer::Call(number));
        if self.handshake.is_pending(number) {
            self.handshake.abort();
        }
        if let Some(modern) = &call.modern {
            self.timers.cancel(&Timer::Gather(number));
            self.reject_questions(&modern.asked);
        }
        self.note_end();
        Some(call)
    }

    /// Ends a call because another request of the client replaces it.
    pub(super) fn replace(&mut self, now: Instant, number: u64) {
        let Some(call) = self.take_call(number) else { return };
        if let Some(link) = call.link().filter(|_| !call.cancelled) {
            let cancelled = jsonrpc::cancelled(&number.to_string(), "the client has replaced the request");
            self.send_own(link, cancelled);
        }
        self.respond_to_client(now, &call, |id| {
            jsonrpc::error(id, jsonrpc::UNAVAILABLE, "the client has replaced the request")
        });
    }

    pub(super) fn refuse_call(&mut self, now: Instant, number: u64, why: &Refusal) {
        let Some(call) = self.take_call(number) else { return };
        if self.streams.refuse(call.stream, why) {
            self.refuse_followers(now, &call, why);
        } else {
            self.respond_to_client(now, &call, |id| {
                jsonrpc::error(id, jsonrpc::UNAVAILABLE, &why.to_string())
            });
        }
    }

    /// Puts an error on a stream for a request that is in no table.
    pub(super) fn fail(&mut self, stream: StreamId, id: &Id, why: &str) {
        let error = jsonrpc::error(id.raw(), jsonrpc::UNAVAILABLE, why);
        self.streams.respond(stream, error);
    }

    /// Sends a message of the conversation itself.
    pub(super) fn send_own(&mut self, link: LinkNumber, line: bytes::Bytes) {
        if let Some(entry) = self.links.get_mut(link).filter(|entry| !entry.write_closed)
            && !entry.outbox.push_own(line)
        {
            self.count(DropReason::ServerNotReading);
        }
    }

    /// Confirms a replayed handshake at its server once the client has confirmed its own.
    pub(super) fn confirm_replay(&mut self, link: LinkNumber) {
        if !self.handshake.is_confirmed() {
            return;
        }
        let Some(entry) = self.links.get_mut(link) else { return };
        if matches!(entry.replay, Replay::Answered { .. }) && !entry.initialized {
            entry.initialized = true;
            self.send_own(link, jsonrpc::initialized());
        }
    }

    /// The link that has the task of a request, if it accepts messages.
    fn link_of_task(&self, line: &[u8]) -> Option<LinkNumber> {
        let message = jsonrpc::Envelope::parse(line).ok()?;
        let link = self.tasks.link(&from_server::task_id(message.params())?)?;
        self.links.get(link).filter(|entry| !entry.write_closed).map(|_| link)
    }
}
