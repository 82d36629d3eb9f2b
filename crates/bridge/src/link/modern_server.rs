//! A server that speaks only MCP 2026-07-28, for a state machine that speaks 2025-11-25 to its
//! servers.
//!
//! The translator is synchronous: lines of the machine and of the server go in, lines for the
//! server come out of [`take_output`](ModernServer::take_output) and lines for the machine are
//! returned. There is no io, and time is an argument. It stands between the outbox of the link and
//! the stream, so that the machine knows nothing of the era of its server.
//!
//! Invariants:
//! - A request of the machine is answered at most once, and exactly once if the server answers what
//!   it is sent.
//! - The server sees ids that are assigned here and never repeat on a link. A message with another
//!   id is counted and dropped.
//! - A question is about one call, and says which. Its answer goes to that call only.
//! - Numbers, strings and unknown members pass as they are written.
//! - Everything that is kept has a limit.
//!
//! `discovery` answers `initialize`, `calls` sends requests and their retries, `questions` asks the
//! client what a server wants to know, `tasks` polls for the result of a call that has become a
//! task, `subscriptions` keeps one `subscriptions/listen` open, and `results` rewrites results and
//! errors.

mod calls;
mod discovery;
mod questions;
mod results;
mod subscriptions;
mod tasks;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::time::Instant;

use self::{calls::ServerCall, discovery::ClientSettings, questions::AskedInput, subscriptions::Subscriptions};
use super::outbox::Outbox;
use crate::{
    config::Config,
    dropped::DropReason,
    jsonrpc::{self, Envelope, Id, MessageKind},
    modern::{
        CALL_HINT, KEY_HINT, META_CAPABILITIES, META_CLIENT_INFO, META_LOG_LEVEL, META_SERVER_INFO, META_SUBSCRIPTION,
        META_VERSION, TASKS_EXTENSION, VERSION,
        error::{INTERNAL, METHOD_NOT_FOUND},
    },
};

const INVALID_RESPONSE: &str = "the response of the MCP server is invalid";
/// The timer of the subscriptions; that of a call is the number of the call, which is never 0.
const SUBSCRIPTIONS: u64 = 0;

/// The translation for one server.
#[derive(Debug)]
pub(crate) struct ModernServer {
    config: Config,
    /// What the client has said in its handshake and since.
    client: ClientSettings,
    /// The server offers tasks.
    has_tasks: bool,
    /// Set if the server does not answer `server/discover` as this era requires.
    era_refused: Arc<AtomicBool>,
    /// The calls of the machine, by its numbers.
    calls: BTreeMap<u64, ServerCall>,
    /// The bytes that all calls keep.
    kept_bytes: usize,
    /// The requests that the server has not answered, by their ids there.
    sent: HashMap<u64, SentRequest>,
    /// The open questions, by their ids toward the machine.
    questions: HashMap<u64, AskedInput>,
    subscriptions: Subscriptions,
    timers: BTreeSet<(Instant, u64)>,
    last_id: u64,
    output: Outbox,
    /// The lines for the machine.
    replies: Vec<Bytes>,
}

/// A request that the server has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SentRequest {
    /// For the `initialize` of this number.
    Discover(u64),
    /// A round of the call of this number.
    Call(u64),
    /// Asks for the task of the call of this number.
    TaskPoll(u64),
    /// A `subscriptions/listen`.
    Listen,
    /// Its answer means nothing.
    Ignored,
}

impl ModernServer {
    /// The flag is set when the server turns out not to speak this era.
    pub(crate) fn new(config: Config, era_refused: Arc<AtomicBool>) -> Self {
        Self {
            output: Outbox::new(config.outgoing),
            config,
            client: ClientSettings::default(),
            has_tasks: false,
            era_refused,
            calls: BTreeMap::new(),
            kept_bytes: 0,
            sent: HashMap::new(),
            questions: HashMap::new(),
            subscriptions: Subscriptions::default(),
            timers: BTreeSet::new(),
            last_id: 0,
            replies: Vec::new(),
        }
    }

    /// Handles a line of the machine. Returns lines for the machine.
    pub(crate) fn receive_from_machine(&mut self, now: Instant, message: &Envelope) -> Vec<Bytes> {
        match message.kind() {
            MessageKind::Request { id, method } => match id.number() {
                Some(number) => self.on_request(now, number, method, message),
                None => self.reply_error(id.raw(), jsonrpc::INVALID_REQUEST, "the id is not a number"),
            },
            MessageKind::Notification { method } => self.on_machine_notification(now, method, message),
            MessageKind::Response { id, error } => self.on_input(now, id.as_ref(), *error, message.outcome()),
        }
        mem::take(&mut self.replies)
    }

    /// Handles a line of the server. Returns lines for the machine.
    pub(crate) fn receive_from_server(&mut self, now: Instant, message: &Envelope) -> Vec<Bytes> {
        match message.kind() {
            MessageKind::Request { id, method } => self.on_server_request(id, method),
            MessageKind::Notification { method } => self.on_server_notification(now, method, message),
            MessageKind::Response { id, error } => self.on_response(now, id.as_ref(), *error, message.outcome()),
        }
        mem::take(&mut self.replies)
    }

    /// Fails what an unreadable line of the server has answered, by its id there.
    pub(crate) fn invalid_response(&mut self, now: Instant, id: u64, why: &str) -> Vec<Bytes> {
        if let Some(sent) = self.sent.remove(&id) {
            self.fail_sent(now, sent, id, why);
        }
        mem::take(&mut self.replies)
    }

    /// The time of the next [`run_timers`](Self::run_timers).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Runs what is due. Returns lines for the machine.
    pub(crate) fn run_timers(&mut self, now: Instant) -> Vec<Bytes> {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            if timer == SUBSCRIPTIONS {
                self.subscriptions_due(now);
            } else {
                self.call_due(now, timer);
            }
        }
        mem::take(&mut self.replies)
    }

    /// The next lines for the server, each with its line break.
    pub(crate) fn take_output(&mut self) -> Option<Bytes> {
        let lines = self.output.take();
        self.output.mark_written();
        lines
    }

    /// The next line for the server, without its line break.
    #[cfg(feature = "http")]
    pub(crate) fn take_line(&mut self) -> Option<Bytes> {
        self.output.take_line().map(|(line, _)| line)
    }

    /// The number of the machine's request that waits for this request.
    #[cfg(feature = "http")]
    pub(crate) fn number_of(&self, id: u64) -> Option<u64> {
        match self.sent.get(&id)? {
            SentRequest::Discover(number) | SentRequest::Call(number) => Some(*number),
            SentRequest::TaskPoll(_) | SentRequest::Listen | SentRequest::Ignored => None,
        }
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    fn on_request(&mut self, now: Instant, number: u64, method: &str, message: &Envelope) {
        match method {
            "initialize" => self.discover(number, message),
            "ping" => self.reply(number, "{}"),
            "logging/setLevel" => self.set_log_level(number, message),
            "resources/subscribe" => self.subscribe(now, number, message),
            "resources/unsubscribe" => self.unsubscribe(now, number, message),
            _ if method.starts_with("tasks/") => {
                self.reply_error(&number.to_string(), METHOD_NOT_FOUND, "the server has no such method");
            }
            _other => self.call(number, method, message),
        }
    }

    fn on_machine_notification(&mut self, now: Instant, method: &str, message: &Envelope) {
        match method {
            "notifications/initialized" => self.start_subscriptions(now),
            "notifications/cancelled" => self.cancel(now, message),
            // The era has no such messages.
            "notifications/progress" | "notifications/roots/list_changed" => {}
            _other => _ = self.send(message.clone().into_line()),
        }
    }

    /// A server of this era has no requests.
    fn on_server_request(&mut self, id: &Id, method: &str) {
        self.count(DropReason::ServerRequestRejected);
        let why = format!("MCP {VERSION} has no requests of servers, so {method} is not answered");
        self.send(jsonrpc::error(id.raw(), METHOD_NOT_FOUND, &why));
    }

    fn on_server_notification(&mut self, now: Instant, method: &str, message: &Envelope) {
        match method {
            "notifications/subscriptions/acknowledged" => self.acknowledged(now, message),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated" => self.on_change(method, message),
            "notifications/cancelled" => self.on_server_cancel(now, message),
            // Tasks are polled.
            "notifications/tasks" => {}
            _other => self.replies.push(message.clone().into_line()),
        }
    }

    fn on_response(&mut self, now: Instant, id: Option<&Id>, error: bool, outcome: &str) {
        // The ids here are numbers. A server that has made a string of one answers that request.
        let as_text = id.and_then(Id::text).and_then(|text| text.parse().ok());
        let Some(id) = id.and_then(Id::number).or(as_text) else {
            self.count(DropReason::UnmatchedResponse);
            return;
        };
        let Some(sent) = self.sent.remove(&id) else {
            if !self.subscriptions.has_closed(id) {
                self.count(DropReason::UnmatchedResponse);
            }
            return;
        };
        if as_text.is_some() {
            self.count(DropReason::UnmatchedResponse);
            self.fail_sent(now, sent, id, INVALID_RESPONSE);
            return;
        }
        match sent {
            SentRequest::Discover(number) => self.discovered(number, error, outcome),
            SentRequest::Call(number) => self.answered(now, number, error, outcome),
            SentRequest::TaskPoll(number) => self.polled(now, number, error, outcome),
            SentRequest::Listen => self.listen_ended(now, id, error.then_some(outcome)),
            SentRequest::Ignored => {}
        }
    }

    fn fail_sent(&mut self, now: Instant, sent: SentRequest, id: u64, why: &str) {
        match sent {
            SentRequest::Discover(number) => self.reply_error(&number.to_string(), jsonrpc::UNAVAILABLE, why),
            SentRequest::Call(number) | SentRequest::TaskPoll(number) => self.fail(number, jsonrpc::UNAVAILABLE, why),
            SentRequest::Listen => self.listen_ended(now, id, None),
            SentRequest::Ignored => {}
        }
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Sends a request of this id. Nothing is kept if it does not fit.
    fn send_request(&mut self, id: u64, request: SentRequest, line: String) -> bool {
        let sent = self.send(line.into());
        if sent {
            self.sent.insert(id, request);
        }
        sent
    }

    fn send(&mut self, line: Bytes) -> bool {
        let fits = self.output.push_own(line);
        if !fits {
            self.count(DropReason::ServerNotReading);
        }
        fits
    }

    /// Answers a request of the machine with a result (JSON text).
    fn reply(&mut self, number: u64, result: &str) {
        self.replies.push(jsonrpc::result(&number.to_string(), result));
    }

    fn reply_error(&mut self, id: &str, code: i32, why: &str) {
        self.replies.push(jsonrpc::error(id, code, why));
    }

    fn refuse_era(&self) {
        self.era_refused.store(true, Ordering::Relaxed);
    }

    fn count(&self, reason: DropReason) {
        self.config.drop_counts.count(reason);
    }
}
