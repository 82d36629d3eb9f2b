//! What a server wants to know before it goes on, as requests to the client.
//!
//! Each question has an id of its own toward the machine, and says in its `_meta` which call it is
//! about. The answers of a round are collected; the last one lets the server go on.

use std::hash::{BuildHasher as _, RandomState};

use tokio::time::Instant;

use super::{
    CALL_HINT, INTERNAL, INVALID_RESPONSE, KEY_HINT, ModernServer,
    calls::{CallStage, Round},
    discovery::InputKind,
};
use crate::{
    dropped::DropReason,
    jsonrpc::{self, Id, json, object::Object},
};

/// The questions of one round.
const MAX_QUESTIONS: usize = 64;

/// An open question.
#[derive(Debug)]
pub(super) struct AskedInput {
    /// The call that it is about.
    call: u64,
    /// The key of the answer.
    key: Box<str>,
}

/// A question as the server has written it.
#[derive(Debug)]
struct Input<'t> {
    key: &'t str,
    method: String,
    params: Object<'t>,
    kind: InputKind,
}

impl ModernServer {
    /// The server has answered a call with questions, or with the wish that it is repeated.
    pub(super) fn input_required(&mut self, now: Instant, number: u64, result: &Object<'_>) {
        let Some(call) = self.calls.get(&number) else { return };
        if !matches!(&*call.method, "tools/call" | "prompts/get" | "resources/read") {
            self.fail(
                number,
                INTERNAL,
                "the MCP server asks about a request that has no questions",
            );
            return;
        }
        if !self.begin_round(number) {
            return;
        }
        let state = result.get("requestState");
        if state.is_some_and(|state| !state.starts_with('"') || !self.keep(number, state.len())) {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        }
        let state: Option<Box<str>> = state.map(Box::from);
        match result.get("inputRequests").filter(|inputs| *inputs != "{}") {
            Some(inputs) => self.ask(number, state, inputs),
            None if state.is_some() => self.repeat_later(now, number, state),
            None => self.fail(number, INTERNAL, INVALID_RESPONSE),
        }
    }

    /// Asks the client everything in a map of questions (JSON text).
    pub(super) fn ask(&mut self, number: u64, state: Option<Box<str>>, inputs: &str) {
        let Some(parsed) = Object::parse(inputs) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        let inputs: Option<Vec<Input<'_>>> = parsed.iter().map(|(key, text)| Input::parse(key, text)).collect();
        let Some(inputs) = inputs.filter(|inputs| inputs.len() <= MAX_QUESTIONS) else {
            self.fail(number, INTERNAL, INVALID_RESPONSE);
            return;
        };
        if let Some(input) = inputs.iter().find(|input| !self.may_ask_for(input.kind)) {
            let why = format!(
                "the MCP server needs {}, which the client does not support",
                input.need()
            );
            self.fail_unanswered(number, &why);
            return;
        }
        let mut round = Round {
            state,
            ..Round::default()
        };
        for input in inputs {
            let id = self.next_id();
            round.open.push(id);
            let key = Box::from(input.key);
            self.questions.insert(id, AskedInput { call: number, key });
            self.replies.push(input.question(id, number).into());
        }
        if let Some(call) = self.calls.get_mut(&number) {
            call.stage = CallStage::Asking(Box::new(round));
        }
    }

    /// The machine answers a question.
    pub(super) fn on_input(&mut self, now: Instant, id: Option<&Id>, error: bool, outcome: &str) {
        let id = id.and_then(Id::number);
        let Some((id, asked)) = id.and_then(|id| Some((id, self.questions.remove(&id)?))) else {
            self.count(DropReason::UnmatchedClientMessage);
            return;
        };
        let number = asked.call;
        let fits = self.keep(number, outcome.len());
        let Some(CallStage::Asking(round)) = self.calls.get_mut(&number).map(|call| &mut call.stage) else {
            return;
        };
        round.open.retain(|open| *open != id);
        if error || !fits {
            let message = json::member(outcome, "message").and_then(|at| json::string(&outcome[at]));
            let why = message
                .filter(|_| error)
                .unwrap_or_else(|| "the answer is too large".to_owned());
            self.fail_unanswered(number, &format!("the client has not answered the MCP server: {why}"));
            return;
        }
        round.answers.push((asked.key, outcome.into()));
        if round.open.is_empty() {
            let Round { state, answers, .. } = std::mem::take(&mut **round);
            let answers: Vec<String> = answers
                .iter()
                .map(|(key, answer)| format!("{}:{answer}", json::quote(key)))
                .collect();
            let answers = format!("{{{}}}", answers.join(","));
            if self.calls.get(&number).is_some_and(|call| call.task.is_some()) {
                self.update_task(now, number, &answers);
            } else {
                self.retry(number, state.as_deref(), Some(&answers));
            }
        }
    }
}

impl<'t> Input<'t> {
    /// Reads a question; `None` if it is none that the era has.
    fn parse(key: &'t str, text: &'t str) -> Option<Self> {
        let [method, params] = json::members(text, ["method", "params"]).ok()?;
        let method = json::string(&text[method?])?;
        let params = Object::parse(params.map_or("{}", |at| &text[at]))?;
        let text_of = |name| params.get(name).and_then(json::string);
        let kind = match method.as_str() {
            "elicitation/create" => match text_of("mode").as_deref() {
                Some("url") => InputKind::Url,
                None | Some("form") => InputKind::Form,
                Some(_) => return None,
            },
            "sampling/createMessage" => InputKind::Sampling {
                tools: params.get("tools").is_some() || params.get("toolChoice").is_some(),
                context: text_of("includeContext").is_some_and(|context| context != "none"),
            },
            "roots/list" => InputKind::Roots,
            _other => return None,
        };
        Some(Self {
            key,
            method,
            params,
            kind,
        })
    }

    fn need(&self) -> &'static str {
        match self.kind {
            InputKind::Form => "elicitation",
            InputKind::Url => "elicitation by URL",
            InputKind::Sampling { .. } => "sampling",
            InputKind::Roots => "roots",
        }
    }

    /// The request to the client.
    fn question(mut self, id: u64, call: u64) -> String {
        let before = self.params.take("_meta").unwrap_or_else(|| "{}".into());
        let mut meta = Object::parse(&before).unwrap_or_default();
        // Nothing could take the progress.
        meta.take("progressToken");
        meta.set(CALL_HINT, json::quote(&call.to_string()));
        meta.set(KEY_HINT, json::quote(self.key));
        self.params.set("_meta", meta.to_string());
        if self.kind == InputKind::Url {
            self.params.set("elicitationId", json::quote(&elicitation_id()));
        }
        jsonrpc::request(id, &self.method, self.params)
    }
}

/// An id that no other elicitation has. It is not a secret.
fn elicitation_id() -> String {
    let part = || RandomState::new().hash_one("elicitation");
    format!("{:016x}{:016x}", part(), part())
}
