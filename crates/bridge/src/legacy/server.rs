//! What the server writes, and what is written to it on the bridge's own account.
//!
//! An answer finds its request by the number that it was sent under; whatever does not fit is counted and dropped, never
//! passed on in the hope that it fits somewhere. Requests of the server that nobody can read get an error, so that it does not hang.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Due, Legacy, Life, asks::Ask, handshake::Outcome, supported, table::Entry};
use crate::{
    envelope::{Envelope, Kind},
    faults::Fault,
    id::{Id, Key},
    json, rpc,
    streams::{About, Item, Routed},
};

/// How long an answer is that always fits: its error would take as much.
const SMALL: usize = 1024;

impl Legacy {
    /// Takes a message of the server.
    pub(crate) fn take(&mut self, now: Instant, message: Envelope) {
        if self.life == Life::Ended {
            return;
        }
        match message.kind().clone() {
            Kind::Response { id, error } => self.answered(now, &message, id.as_ref(), error),
            Kind::Request { id, .. } => self.ask(now, id, message),
            Kind::Notification { method } => self.notified(message, &method),
        }
        self.take_note();
    }

    fn answered(&mut self, now: Instant, message: &Envelope, id: Option<&Id>, error: bool) {
        let Some(number) = id.and_then(Id::number).filter(|number| self.table.has(*number)) else {
            self.faults.count(Fault::UnknownAnswer);
            return;
        };
        let outcome = if self.handshake.is_asked(number) {
            self.handshake.answered(error, message.outcome())
        } else {
            Outcome::Pass
        };
        if !error
            && let Some(wish) = self.table.take_wish(number)
            && !self.handshake.grant(wish, self.config.max_subscriptions)
        {
            self.faults.count(Fault::RecordFull);
        }
        let delivered = self.settle(now, number, |id| match &outcome {
            Outcome::Pass => message.with_id(id),
            Outcome::TooNew(version) => too_new(id, version),
        });
        if !delivered {
            self.faults.count(Fault::AnswerAbandoned);
        }
    }

    /// The server has answered a request with more than can be passed on.
    pub(crate) fn overlong(&mut self, now: Instant, number: u64) {
        if self.handshake.is_asked(number) {
            self.handshake.given_up();
        }
        self.settle(now, number, |id| {
            rpc::error(id, rpc::UNAVAILABLE, "the answer of the MCP server is too long")
        });
        self.take_note();
    }

    fn ask(&mut self, now: Instant, id: Id, message: Envelope) {
        if self.asks.contains(id.key()) {
            self.faults.count(Fault::AskRepeated);
            return;
        }
        let key = id.key().clone();
        // `asked` sets the deadline that counts, once it is known where the request went.
        self.asks.insert(Ask { id, deadline: now });
        self.due.insert((now, Due::Ask(key.clone())));
        let routed = if self.asks.len() > self.config.max_asks {
            Routed::Refused
        } else {
            self.streams.route(Item::Ask {
                key: key.clone(),
                line: message.into_line(),
            })
        };
        self.asked(now, &key, &routed);
    }

    fn notified(&mut self, message: Envelope, method: &str) {
        let mut about = About::Other;
        match method {
            "notifications/progress" => {
                if let Some(token) = message.param("progressToken").and_then(Id::parse) {
                    let stream = self.table.stream_of_token(token.key());
                    if stream.is_some_and(|stream| self.streams.notify(stream, message.clone().into_line())) {
                        return;
                    }
                    about = About::Progress(token.key().clone());
                }
            }
            "notifications/cancelled" => {
                let id = message.param("requestId").and_then(Id::parse);
                let withdrawn = id.and_then(|id| self.take_ask(id.key()));
                if withdrawn.is_some_and(|ask| self.streams.withdraw(ask.id.key())) {
                    return;
                }
            }
            _other => {}
        }
        let line = message.into_line();
        self.streams.route(Item::Notification { line, about });
    }

    /// A request of the server went somewhere: it gets the time that it has there, or its error.
    pub(super) fn asked(&mut self, now: Instant, key: &Key, routed: &Routed) {
        match routed {
            Routed::Placed => self.postpone(key, now + self.config.request_timeout),
            Routed::Waiting => self.postpone(key, now + self.config.listener_timeout),
            Routed::Refused => {
                self.refuse_ask(key, rpc::UNAVAILABLE, "the client has too much to read");
            }
        }
    }

    pub(super) fn adopted(&mut self, now: Instant, keys: &[Key]) {
        for key in keys {
            self.asked(now, key, &Routed::Placed);
        }
    }

    fn postpone(&mut self, key: &Key, deadline: Instant) {
        if let Some(before) = self.asks.postpone(key, deadline) {
            self.due.remove(&(before, Due::Ask(key.clone())));
            self.due.insert((deadline, Due::Ask(key.clone())));
        }
    }

    pub(super) fn take_ask(&mut self, key: &Key) -> Option<Ask> {
        let ask = self.asks.take(key)?;
        self.due.remove(&(ask.deadline, Due::Ask(key.clone())));
        Some(ask)
    }

    pub(super) fn refuse_ask(&mut self, key: &Key, code: i32, why: &str) {
        if let Some(ask) = self.take_ask(key) {
            self.streams.withdraw(key);
            self.faults.count(Fault::AskRefused);
            self.tell_server(rpc::error(ask.id.raw(), code, why));
        }
    }

    pub(super) fn tell_server(&mut self, line: Bytes) {
        if self.life == Life::Open && !self.outbox.offer_own(line) {
            self.faults.count(Fault::OutputDropped);
        }
    }

    /// Takes a request out of flight with its answer, which is made for the id that the client knows.
    /// `false` if the client is gone.
    pub(super) fn settle(&mut self, now: Instant, number: u64, answer: impl FnOnce(&str) -> Bytes) -> bool {
        let Some(entry) = self.table.take(number) else {
            return false;
        };
        self.due.remove(&(entry.deadline, Due::Request(number)));
        self.deliver(now, &entry, answer)
    }

    pub(super) fn deliver(&mut self, now: Instant, entry: &Entry, answer: impl FnOnce(&str) -> Bytes) -> bool {
        let id = entry.id.raw();
        let mut line = answer(id);
        if line.len() > SMALL && !self.streams.has_room(entry.stream, line.len()) {
            self.faults.count(Fault::AnswerRefused);
            line = rpc::error(id, rpc::UNAVAILABLE, "the client has too much to read");
        }
        let delivered = self.streams.answer(entry.stream, line);
        self.not_needed(now, entry.stream);
        delivered
    }

    /// Takes note of what the streams had to give up.
    pub(super) fn take_note(&mut self) {
        for _ in 0..self.streams.take_dropped() {
            self.faults.count(Fault::NotificationDropped);
        }
        for stream in self.streams.take_gone() {
            self.needed(stream);
        }
    }
}

fn too_new(id: &str, version: &str) -> Bytes {
    let data = format!(
        r#"{{"supported":{},"requested":{}}}"#,
        supported(),
        json::quote(version)
    );
    rpc::error_with(
        Some(id),
        rpc::INVALID_PARAMS,
        "the server insists on an unsupported protocol version",
        Some(&data),
    )
}
