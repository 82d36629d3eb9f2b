//! Questions of servers about the calls of modern clients.
//!
//! Nothing that a server writes over a byte stream says which call a question is about. Of the
//! calls that run on its link it belongs, in this order, to: the oldest one of a tool that has
//! asked before and has no question yet; one that has just got a question; the oldest one of the
//! tool of the newest one; the newest one; and only then to the one that was parked last. Servers
//! mostly ask about calls of one tool in their order. All of them are of one grant and of equal
//! capabilities, and an answer goes to the server by the question's own id, so a wrong guess still
//! ends well.

use std::cmp::Reverse;

use tokio::time::{Duration, Instant};

use super::super::{StateMachine, from_server::task_id};
use crate::{
    jsonrpc::{self, Envelope, json, object::Object},
    modern::{
        CALL_HINT, KEY_HINT, META_RELATED_TASK,
        capabilities::{ELICITATION, ROOTS, SAMPLING},
        error::METHOD_NOT_FOUND,
        input,
        request::may_be_asked,
    },
    tables::{
        modern_calls::{Asked, ModernCall, Stage},
        questions::{Input, Question},
        timers::Timer,
    },
};

/// The time after a question in which the next one goes to the client with it, and the longest time
/// after the first.
const GATHER_TIME: Duration = Duration::from_millis(25);
const MAX_GATHER_TIME: Duration = Duration::from_millis(100);
/// The time that a question waits for a call that it may belong to.
const HOLD_TIME: Duration = Duration::from_secs(10);

impl StateMachine {
    /// Handles a question of a server: it belongs to a call, or waits for one.
    pub(in crate::machine) fn on_modern_question(
        &mut self,
        now: Instant,
        number: u64,
        method: &str,
        message: &Envelope,
    ) {
        let is_known = matches!(method, ELICITATION | SAMPLING | ROOTS);
        if !is_known || self.config.state_sealer.is_none() {
            self.reject_question(number, METHOD_NOT_FOUND, "the client does not answer this method");
            return;
        }
        let hint = |name| {
            let meta = message.param("_meta")?;
            json::string(&meta[json::member(meta, name)?])
        };
        let call = hint(CALL_HINT).and_then(|call| call.parse().ok());
        let input = Input {
            method: method.into(),
            params: message.params().unwrap_or("{}").into(),
            key: hint(KEY_HINT).map(Box::from),
        };
        let meta = message.param("_meta");
        let related = meta.and_then(|meta| Some(&meta[json::member(meta, META_RELATED_TASK)?]));
        let task = task_id(related);
        let Some(question) = self.questions.get_mut(number) else {
            return;
        };
        let link = question.link;
        question.input = Some(Box::new(input));
        if let Some(task) = task {
            question.task = Some(task.into());
            return self.ask_about_task(now, number);
        }
        match (self.asking_call(link, call), call) {
            (Some(call), _) => self.ask(now, number, call),
            // No other call may answer it.
            (None, Some(_)) => self.reject_question(number, jsonrpc::UNAVAILABLE, "the request has ended"),
            (None, None) => self.timers.set(Timer::Question(number), now + HOLD_TIME),
        }
    }

    /// A call runs on a link: the questions that have waited there for one belong to it.
    pub(in crate::machine) fn adopt_questions(&mut self, now: Instant, call: u64, link: u64) {
        if self.is_asking(call) {
            for number in self.questions.without_call(link) {
                self.ask(now, number, call);
            }
        }
    }

    /// A question is over that its client has not answered.
    pub(in crate::machine) fn withdraw_modern(&mut self, number: u64, question: &Question) {
        if let Some(modern) = question.call.and_then(|call| self.calls.modern_mut(call)) {
            modern.asked.retain(|asked| asked.question != number);
        }
    }

    /// The call that a question of a link is about.
    pub(super) fn asking_call(&self, link: u64, hint: Option<u64>) -> Option<u64> {
        if let Some(hinted) = hint {
            let is_on_link = |call: &u64| self.calls.get(*call).is_some_and(|call| call.link() == Some(link));
            return Some(hinted).filter(|call| is_on_link(call) && self.is_asking(*call));
        }
        let askers = self.modern.as_ref().map(|modern| &modern.askers)?;
        let calls: Vec<&ModernCall> = self
            .calls
            .on(link)
            .filter_map(|call| call.modern.as_deref().filter(|call| self.is_asking(call.number)))
            .collect();
        let running = calls.iter().filter(|call| call.stage == Stage::Running);
        let newest = running.max_by_key(|call| call.number);
        calls
            .iter()
            .min_by_key(|call| {
                let has_asked = call.name.as_deref().is_some_and(|name| askers.contains(name));
                let like_newest = newest.is_some_and(|newest| newest.name == call.name);
                let newest_first = u64::MAX - call.number;
                match call.stage {
                    Stage::Running if has_asked && call.asked.is_empty() => (0, None, call.number),
                    Stage::Gathering(_) => (1, None, newest_first),
                    Stage::Running if like_newest => (2, None, call.number),
                    Stage::Running => (3, None, newest_first),
                    Stage::Parked(since) => (4, Some(Reverse(since)), newest_first),
                }
            })
            .map(|call| call.number)
    }

    /// True if a server may ask about a call.
    fn is_asking(&self, number: u64) -> bool {
        self.calls.get(number).is_some_and(|call| {
            may_be_asked(&call.method) && !call.cancelled && call.modern.is_some() && call.link().is_some()
        })
    }

    /// Adds a question to its call, unless the client has answered it or cannot.
    pub(super) fn ask(&mut self, now: Instant, number: u64, call_number: u64) {
        let Some(question) = self.questions.get_mut(number) else {
            return;
        };
        let Some(input) = question.input.clone() else { return };
        question.call = Some(call_number);
        let params = Object::parse(&input.params).unwrap_or_default();
        if self.reject_missing(call_number, number, &input.method, &params) {
            return;
        }
        let Some(modern) = self.calls.modern_mut(call_number) else {
            return;
        };
        modern.questions += 1;
        let taken = |key: &str| modern.asked.iter().any(|asked| *asked.key == *key);
        let hinted = input.key.as_deref().filter(|key| !taken(key));
        // A key of the server may look like one that is made here.
        while hinted.is_none() && taken(&input::key(None, &input.method, modern.questions)) {
            modern.questions += 1;
        }
        let key: Box<str> = input::key(hinted, &input.method, modern.questions).into();
        let context = modern.capabilities.has_sampling_context();
        let ready = hinted.and_then(|key| self.calls.take_answer(call_number, key));
        if let Some(answer) = ready.filter(|answer| input::is_valid(&input.method, answer)) {
            self.answer_question(number, &answer);
            return;
        }
        let asked = Asked {
            question: number,
            key,
            known: hinted.is_some(),
            method: input.method.clone(),
            params: input::question_params(&params, context).map(Box::from),
        };
        let mut name = None;
        if let Some(modern) = self.calls.modern_mut(call_number) {
            modern.asked.push(asked);
            name = modern.name.clone();
        }
        self.timers
            .set(Timer::Question(number), now + self.config.question_timeout);
        self.gather(now, call_number);
        if let Some(modern) = &mut self.modern {
            modern.note_asker(name.as_deref());
        }
    }

    /// Rejects a question that the client of its call has not declared. True if it has not.
    pub(super) fn reject_missing(&mut self, call: u64, question: u64, method: &str, params: &Object<'_>) -> bool {
        let Some(modern) = self.calls.modern_mut(call) else {
            return false;
        };
        let Some(missing) = modern.capabilities.missing(method, params) else {
            return false;
        };
        merge(modern.missing.get_or_insert_default(), missing);
        let why = "the client has not declared this capability";
        self.reject_question(question, METHOD_NOT_FOUND, why);
        true
    }

    /// Lets the questions of a call go to its client within a moment. Those of a call without a
    /// client wait for its retry.
    pub(super) fn gather(&mut self, now: Instant, call: u64) {
        let Some(modern) = self.calls.modern_mut(call) else {
            return;
        };
        let first = match modern.stage {
            Stage::Running => now,
            Stage::Gathering(first) => first,
            Stage::Parked(_) => return,
        };
        modern.stage = Stage::Gathering(first);
        let at = (now + GATHER_TIME).min(first + MAX_GATHER_TIME);
        self.timers.set(Timer::Gather(call), at);
    }

    /// Sends an answer to the server that has asked.
    pub(super) fn answer_question(&mut self, number: u64, answer: &str) {
        if let Some(question) = self.take_question(number) {
            let line = jsonrpc::result(question.server_id.raw(), answer);
            self.send_own(question.link, line);
        }
    }
}

/// Adds the members of one object to another.
fn merge(into: &mut serde_json::Value, from: serde_json::Value) {
    match (into, from) {
        (serde_json::Value::Object(into), serde_json::Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert_with(|| serde_json::json!({})), value);
            }
        }
        (into, from) => *into = from,
    }
}
