//! Requests of the servers to the client: sampling, elicitation, roots.
//!
//! A question is open until the client answers it, its deadline passes, its server cancels it, or
//! its server ends. An answer to any other question is dropped, so no question is answered twice. A
//! question that no client can read gets an error, so that its server does not hang; one that a
//! client may have read and that is given up is cancelled at the client (MCP 2025-11-25,
//! "Cancellation").

use tokio::time::Instant;

use super::{StateMachine, from_server::CLIENT_NOT_READING};
use crate::{
    dropped::DropReason,
    jsonrpc::{self, Envelope, Id, json},
    modern::input,
    streams::{Routed, StreamId, StreamMessage, StreamMessageKind},
    tables::{links::LinkNumber, questions::Question, timers::Timer},
};

impl StateMachine {
    pub(super) fn on_request(&mut self, now: Instant, link: LinkNumber, id: Id, method: &str, message: &Envelope) {
        if method == "ping" {
            self.send_own(link, jsonrpc::result(id.raw(), "{}"));
            return;
        }
        let refusal = if self.questions.of_server(link, id.key()).is_some() {
            tracing::warn!(
                method,
                id = id.raw(),
                "the MCP server repeats the id of an open request"
            );
            Some((jsonrpc::INVALID_REQUEST, "a request with this id is open"))
        } else if !self.may_ask(link) {
            Some((jsonrpc::UNAVAILABLE, "this server no longer serves the session"))
        } else if self.questions.len() >= self.config.max_server_requests {
            Some((jsonrpc::UNAVAILABLE, CLIENT_NOT_READING))
        } else {
            None
        };
        if let Some((code, why)) = refusal {
            self.count(DropReason::ServerRequestRejected);
            self.send_own(link, jsonrpc::error(id.raw(), code, why));
            return;
        }
        let number = self.questions.insert(Question {
            link,
            server_id: id,
            token: message.progress_token(),
            stream: None,
            input: None,
            call: None,
            task: None,
        });
        if self.modern.is_some() {
            return self.on_modern_question(now, number, method, message);
        }
        let without_hints = input::without_hints(message);
        let message = without_hints.as_ref().unwrap_or(message);
        let routed = self.streams.route(StreamMessage {
            kind: StreamMessageKind::Question(number),
            link,
            line: message.with_id_and_token(&self.questions.client_id(number)),
        });
        self.question_routed(now, number, &routed);
    }

    /// Sets the deadline of an open question, or rejects it.
    pub(super) fn question_routed(&mut self, now: Instant, number: u64, routed: &Routed) {
        let Some(question) = self.questions.get_mut(number) else {
            return;
        };
        let time = match routed {
            Routed::Placed(stream) => {
                question.stream = Some(*stream);
                self.config.question_timeout
            }
            Routed::Waiting => {
                question.stream = None;
                self.config.listener_timeout
            }
            Routed::Rejected => {
                self.reject_question(number, jsonrpc::UNAVAILABLE, CLIENT_NOT_READING);
                return;
            }
        };
        self.timers.set(Timer::Question(number), now + time);
    }

    pub(super) fn questions_placed(&mut self, now: Instant, stream: StreamId, placed: &[u64]) {
        for number in placed {
            self.question_routed(now, *number, &Routed::Placed(stream));
        }
    }

    /// Closes a question.
    pub(super) fn take_question(&mut self, number: u64) -> Option<Question> {
        let question = self.questions.take(number)?;
        self.timers.cancel(&Timer::Question(number));
        self.note_end();
        Some(question)
    }

    /// Gives a question up: its server gets an error, and its client a cancellation.
    pub(super) fn reject_question(&mut self, number: u64, code: i32, why: &str) {
        let Some(question) = self.cancel_question(number, why) else {
            return;
        };
        self.count(DropReason::ServerRequestRejected);
        self.send_own(question.link, jsonrpc::error(question.server_id.raw(), code, why));
    }

    /// Closes a question that its server no longer waits for. If a client may have read it, a
    /// cancellation follows on the stream that has carried it.
    pub(super) fn cancel_question(&mut self, number: u64, why: &str) -> Option<Question> {
        let question = self.take_question(number)?;
        if self.modern.is_some() {
            self.withdraw_modern(number, &question);
            return Some(question);
        }
        if !self.streams.withdraw(number) {
            let line = jsonrpc::cancelled(&self.questions.client_id(number), why);
            self.send_to_carrier(&question, line);
        }
        Some(question)
    }

    /// A server cancels a request. A reason that it gives goes on to the client.
    pub(super) fn on_server_cancel(&mut self, link: LinkNumber, message: &Envelope) {
        let id = message.param_id("requestId");
        let Some(number) = id.and_then(|id| self.questions.of_server(link, id.key())) else {
            return;
        };
        let reason = message.param("reason").and_then(json::string);
        self.cancel_question(
            number,
            reason.as_deref().unwrap_or("the MCP server has cancelled the request"),
        );
    }

    fn send_to_carrier(&mut self, question: &Question, line: bytes::Bytes) {
        let carried = question
            .stream
            .is_some_and(|stream| self.streams.notify(stream, line.clone()));
        if !carried {
            self.streams.route(StreamMessage {
                kind: StreamMessageKind::Notification,
                link: question.link,
                line,
            });
        }
    }
}
