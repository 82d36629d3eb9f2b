//! The machine's requests at the server: their rounds, their ends, and their cancellation.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant};

use super::{
    INTERNAL, INVALID_RESPONSE, ModernServer, SentRequest,
    results::{self, ResultType},
};
use crate::jsonrpc::{self, Envelope, json, object::Object};

/// The rounds of questions that a call may have. Clients of this era stop there, too.
const MAX_ROUNDS: u8 = 10;
/// The time before a call is repeated whose server has only asked to do so.
const REPEAT_DELAY: Duration = Duration::from_millis(250);

/// A request of the machine that is not answered yet.
#[derive(Debug)]
pub(super) struct ServerCall {
    pub(super) method: Box<str>,
    /// The parameters (JSON text), while they may have to be sent again.
    params: Option<Box<str>>,
    pub(super) rounds: u8,
    pub(super) stage: CallStage,
    /// The task that the call has become.
    pub(super) task: Option<TaskHandle>,
    /// The bytes that are kept for the call.
    pub(super) kept_bytes: usize,
    deadline: Option<Instant>,
}

#[derive(Debug)]
pub(super) enum CallStage {
    /// The server has the request under this id.
    Running(u64),
    /// As `Running`, but the client has cancelled the call.
    Cancelled(u64),
    /// Questions of the server are open.
    Asking(Box<Round>),
    /// The request is repeated when its time comes, with this state (JSON text).
    Repeating(Option<Box<str>>),
    /// The task is asked for when its time comes, or was asked for under this id.
    Polling(Option<u64>),
}

/// What the server wants to know before it goes on.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The state to return (JSON text).
    pub(super) state: Option<Box<str>>,
    /// The ids of the questions that have no answer.
    pub(super) open: Vec<u64>,
    /// The answers (JSON texts) by the keys of the server.
    pub(super) answers: Vec<(Box<str>, Box<str>)>,
}

/// A task of the server.
#[derive(Debug)]
pub(super) struct TaskHandle {
    /// JSON text.
    pub(super) id: Box<str>,
    pub(super) interval: Duration,
    /// The keys of questions that were asked.
    pub(super) asked: BTreeSet<Box<str>>,
}

impl ModernServer {
    /// Sends a request of the machine to the server.
    pub(super) fn call(&mut self, number: u64, method: &str, message: &Envelope) {
        let number_text = number.to_string();
        if self.calls.len() >= self.config.max_in_flight.saturating_mul(2) || self.calls.contains_key(&number) {
            self.reply_error(&number_text, jsonrpc::UNAVAILABLE, "too many requests are in flight");
            return;
        }
        let params = message.params().unwrap_or("{}");
        let id = self.next_id();
        let Some(line) = self.request(id, method, params, &[]) else {
            self.reply_error(
                &number_text,
                jsonrpc::INVALID_PARAMS,
                "the parameters are not an object",
            );
            return;
        };
        if !self.send_request(id, SentRequest::Call(number), line) {
            self.reply_error(&number_text, jsonrpc::UNAVAILABLE, "the MCP server does not read");
            return;
        }
        let asks = matches!(method, "tools/call" | "prompts/get" | "resources/read");
        let params = Some(params).filter(|params| asks && self.has_room(params.len()));
        let kept_bytes = params.map_or(0, str::len);
        self.kept_bytes += kept_bytes;
        let call = ServerCall {
            method: method.into(),
            params: params.map(Box::from),
            rounds: 0,
            stage: CallStage::Running(id),
            task: None,
            kept_bytes,
            deadline: None,
        };
        self.calls.insert(number, call);
    }

    /// The server has answered a round of a call.
    pub(super) fn answered(&mut self, now: Instant, number: u64, error: bool, outcome: &str) {
        let Some(call) = self.calls.get(&number) else { return };
        let cancelled = matches!(call.stage, CallStage::Cancelled(_));
        if error {
            let response = results::error(&number.to_string(), &call.method, outcome);
            self.finish(number);
            self.replies.push(response);
            return;
        }
        let Some(result) = Object::parse(outcome) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        match ResultType::of(&result) {
            ResultType::Complete => self.complete(number, result),
            ResultType::InputRequired | ResultType::Task if cancelled => {
                self.fail(number, jsonrpc::UNAVAILABLE, "the request was cancelled");
            }
            ResultType::InputRequired => self.input_required(now, number, &result),
            ResultType::Task => self.task_created(now, number, &result),
            ResultType::Unknown => self.fail(
                number,
                INTERNAL,
                "the MCP server has answered with an unknown type of result",
            ),
        }
    }

    /// Ends a call with its result.
    pub(super) fn complete(&mut self, number: u64, result: Object<'_>) {
        if let Some(call) = self.finish(number) {
            let result = results::complete(&call.method, result);
            self.reply(number, &result);
        }
    }

    /// Ends a call with an error.
    pub(super) fn fail(&mut self, number: u64, code: i32, why: &str) {
        if self.finish(number).is_some() {
            self.reply_error(&number.to_string(), code, why);
        }
    }

    /// Ends a call because the client does not answer its server: a tool has failed, anything else
    /// has an error.
    pub(super) fn fail_unanswered(&mut self, number: u64, why: &str) {
        let is_tool = self
            .calls
            .get(&number)
            .is_some_and(|call| &*call.method == "tools/call");
        if !is_tool {
            self.fail(number, INTERNAL, why);
        } else if self.finish(number).is_some() {
            self.reply(number, &results::tool_error(why));
        }
    }

    /// Ends a call: withdraws its questions and forgets its requests.
    pub(super) fn finish(&mut self, number: u64) -> Option<ServerCall> {
        let call = self.calls.remove(&number)?;
        self.kept_bytes -= call.kept_bytes;
        if let Some(at) = call.deadline {
            self.timers.remove(&(at, number));
        }
        match &call.stage {
            CallStage::Running(id) | CallStage::Cancelled(id) => _ = self.sent.remove(id),
            CallStage::Polling(Some(id)) => {
                if let Some(sent) = self.sent.get_mut(id) {
                    *sent = SentRequest::Ignored;
                }
            }
            CallStage::Asking(round) => {
                for question in &round.open {
                    self.questions.remove(question);
                    let line = jsonrpc::cancelled(&question.to_string(), "the request is over");
                    self.replies.push(line);
                }
            }
            CallStage::Polling(None) | CallStage::Repeating(_) => {}
        }
        Some(call)
    }

    /// The machine cancels a request. It is not answered any more, unless the server does so soon.
    pub(super) fn cancel(&mut self, now: Instant, message: &Envelope) {
        let Some(number) = message.param_id("requestId").and_then(|id| id.number()) else {
            return;
        };
        self.subscriptions.forget(number);
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        let CallStage::Running(id) = call.stage else {
            if !matches!(call.stage, CallStage::Cancelled(_)) {
                let call = self.finish(number);
                if let Some(task) = call.and_then(|call| call.task) {
                    self.cancel_task(&task);
                }
            }
            return;
        };
        call.stage = CallStage::Cancelled(id);
        self.set_deadline(number, now + self.config.cancel_grace);
        let reason = message.param("reason").and_then(json::string).unwrap_or_default();
        self.send(jsonrpc::cancelled(&id.to_string(), &reason));
    }

    /// The time of a call has come.
    pub(super) fn call_due(&mut self, now: Instant, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        call.deadline = None;
        match &mut call.stage {
            CallStage::Repeating(state) => {
                let state = state.take();
                self.retry(number, state.as_deref(), None);
            }
            CallStage::Polling(None) => self.poll(now, number),
            CallStage::Cancelled(_) => _ = self.finish(number),
            CallStage::Polling(Some(_)) => {
                self.fail(
                    number,
                    jsonrpc::TIMED_OUT,
                    "the MCP server does not answer about its task",
                );
            }
            CallStage::Running(_) | CallStage::Asking(_) => {}
        }
    }

    /// Sets the time of a call.
    pub(super) fn set_deadline(&mut self, number: u64, at: Instant) {
        let Some(call) = self.calls.get_mut(&number) else {
            return;
        };
        if let Some(before) = call.deadline.replace(at) {
            self.timers.remove(&(before, number));
        }
        self.timers.insert((at, number));
    }

    /// Begins another round. `false` if there were too many; the call has ended then.
    pub(super) fn begin_round(&mut self, number: u64) -> bool {
        let Some(call) = self.calls.get_mut(&number) else {
            return false;
        };
        call.rounds += 1;
        let fits = call.rounds <= MAX_ROUNDS;
        if !fits {
            self.fail_unanswered(number, "the MCP server asks too often");
        }
        fits
    }

    /// Repeats a call soon.
    pub(super) fn repeat_later(&mut self, now: Instant, number: u64, state: Option<Box<str>>) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.stage = CallStage::Repeating(state);
            self.set_deadline(number, now + REPEAT_DELAY);
        }
    }

    /// Sends a call again, with the state of the server and the answers that it wants (JSON texts).
    pub(super) fn retry(&mut self, number: u64, state: Option<&str>, answers: Option<&str>) {
        let id = self.next_id();
        let Some(call) = self.calls.get(&number) else { return };
        let state = state.map(|state| ("requestState", state));
        let answers = answers.map(|answers| ("inputResponses", answers));
        let more: Vec<_> = answers.into_iter().chain(state).collect();
        let params = call.params.as_deref();
        let line = params.and_then(|params| self.request(id, &call.method, params, &more));
        let Some(line) = line else {
            self.fail(number, INTERNAL, "the request is too large to be sent again");
            return;
        };
        if !self.send_request(id, SentRequest::Call(number), line) {
            self.fail(number, jsonrpc::UNAVAILABLE, "the MCP server does not read");
        } else if let Some(call) = self.calls.get_mut(&number) {
            call.stage = CallStage::Running(id);
        }
    }

    /// Keeps so many more bytes for a call. `false` if there is no room.
    pub(super) fn keep(&mut self, number: u64, bytes: usize) -> bool {
        let fits = self.has_room(bytes);
        if fits && let Some(call) = self.calls.get_mut(&number) {
            call.kept_bytes += bytes;
            self.kept_bytes += bytes;
        }
        fits
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.kept_bytes.saturating_add(bytes) <= self.config.outgoing.bytes
    }
}
