//! Responses to modern clients: those of servers, translated, and results that ask for input.

use bytes::Bytes;
use tokio::time::{Duration, Instant};

use super::super::StateMachine;
use crate::{
    jsonrpc::{self, Envelope, json, object::Object},
    modern::{
        ModernError,
        capabilities::ELICITATION,
        error::INTERNAL,
        input,
        request::may_be_asked,
        results::{self, URL_ELICITATION_REQUIRED},
        state::RequestState,
    },
    parked_calls::ParkedPlace,
    tables::{
        calls::Call,
        modern_calls::{Asked, ModernCall, Stage},
        timers::Timer,
    },
};

/// The time for which an outcome is kept for a retry that comes again.
const OUTCOME_TIME: Duration = Duration::from_secs(60);

impl StateMachine {
    /// Ends a modern call with a response in the form of 2025-11-25. `false` if the client is gone.
    pub(in crate::machine) fn respond_to_modern(&mut self, now: Instant, call: &Call, response: &Bytes) -> bool {
        let Some(modern) = &call.modern else { return false };
        let line = self.translate(call, modern, response);
        if modern.is_parked() {
            // No client waits; the next retry gets it.
            self.keep_outcome(now, (modern.number, modern.round), &line, self.config.park_time);
            return true;
        }
        self.deliver(now, call, modern, &line)
    }

    /// Puts a response on the stream of a call, and keeps it for a retry that comes again.
    fn deliver(&mut self, now: Instant, call: &Call, modern: &ModernCall, line: &Bytes) -> bool {
        let delivered = self.put_response(now, call.stream, call.id.raw(), line.clone());
        if let Some(answered) = modern.round.checked_sub(1) {
            self.keep_outcome(now, (modern.number, answered), line, OUTCOME_TIME);
        }
        delivered
    }

    fn keep_outcome(&mut self, now: Instant, key: (u64, u32), line: &Bytes, time: Duration) {
        let Some(modern) = &mut self.modern else { return };
        let round = modern.rounds.get_mut(key);
        let followers = round
            .map(|round| std::mem::take(&mut round.followers))
            .unwrap_or_default();
        self.timers.set(Timer::Round(key), now + time);
        for (gone, round) in modern.rounds.finish(key, line.clone()) {
            self.timers.cancel(&Timer::Round(gone));
            self.reject_questions(&round.asked);
        }
        for follower in followers {
            if let Ok(message) = Envelope::parse(line) {
                let id = follower.id.raw();
                self.put_response(now, follower.stream, id, message.with_id(id));
            }
        }
    }

    pub(in crate::machine) fn expire_outcome(&mut self, key: (u64, u32)) {
        let round = self.modern.as_mut().and_then(|modern| modern.rounds.remove(key));
        if let Some(round) = round {
            self.reject_questions(&round.asked);
        }
    }

    /// The open questions of a call that its server has just answered are about other calls. Those
    /// that its client has stay with its outcome, and the others go to another call.
    pub(in crate::machine) fn hand_over_questions(&mut self, now: Instant, call: &Call, asked: Vec<Asked>) {
        let (Some(modern), Some(ended)) = (&mut self.modern, &call.modern) else {
            return;
        };
        if ended.is_parked() {
            match modern.rounds.get_mut((ended.number, ended.round)) {
                Some(round) => round.asked = asked,
                None => self.reject_questions(&asked),
            }
            return;
        }
        for asked in asked {
            let link = self.questions.get_mut(asked.question).map(|question| question.link);
            match link.and_then(|link| self.asking_call(link, None)) {
                Some(other) => self.ask(now, asked.question, other),
                None => self.reject_questions(&[asked]),
            }
        }
    }

    pub(in crate::machine) fn reject_questions(&mut self, asked: &[Asked]) {
        for asked in asked {
            self.reject_question(asked.question, jsonrpc::UNAVAILABLE, "the request has ended");
        }
    }

    /// Ends the exchange of a call with the questions of its server.
    pub(in crate::machine) fn ask_client(&mut self, now: Instant, number: u64) {
        let Some(modern) = self.calls.modern_mut(number) else {
            return;
        };
        if modern.asked.is_empty() {
            modern.stage = Stage::Running;
            return;
        }
        let Some(place) = self.take_parked_place(now) else {
            return self.drop_questions(number, "too many requests wait for answers");
        };
        let Some(call) = self.calls.get(number) else { return };
        let Some(modern) = &call.modern else { return };
        let (stream, id, round) = (call.stream, call.id.clone(), modern.round);
        let state = self.seal_state(Some(number), round, modern.content);
        let questions = modern.asked.iter().map(|asked| {
            let question = input::question(&asked.method, asked.params.as_deref());
            (&*asked.key, question)
        });
        let result = results::input_required(questions, &state, self.handshake.server_info());
        let line = jsonrpc::result(id.raw(), &result);
        if let Some(answered) = round.checked_sub(1) {
            self.keep_outcome(now, (number, answered), &line, OUTCOME_TIME);
        }
        if let Some(modern) = self.calls.modern_mut(number) {
            modern.stage = Stage::Parked(now);
            modern.place = Some(place);
            modern.asked.iter_mut().for_each(|asked| asked.known = true);
        }
        self.timers.set(Timer::Call(number), now + self.config.park_time);
        self.put_response(now, stream, id.raw(), line);
        self.config.era_counts.note_parked();
    }

    /// A place for a call that is to be parked. At a limit the oldest one here ends for it; `None`
    /// if there is none.
    fn take_parked_place(&mut self, now: Instant) -> Option<ParkedPlace> {
        let mut parked = self.calls.parked();
        parked.sort_unstable();
        for (at, (_, oldest)) in parked.iter().enumerate() {
            if parked.len() - at < self.config.max_parked
                && let Some(place) = self.config.parked_calls.take()
            {
                return Some(place);
            }
            self.time_out(now, *oldest);
        }
        self.config.parked_calls.take()
    }

    fn seal_state(&self, call: Option<u64>, round: u32, content: [u8; 16]) -> String {
        let (Some(modern), Some(sealer)) = (&self.modern, &self.config.state_sealer) else {
            return String::new();
        };
        let state = RequestState {
            tag: modern.tag.clone(),
            epoch: modern.epoch,
            call,
            round,
            content,
        };
        state.seal(&**sealer, &modern.principal, self.config.park_time)
    }

    fn translate(&self, call: &Call, modern: &ModernCall, response: &Bytes) -> Bytes {
        let id = call.id.raw();
        let Some((outcome, error)) = jsonrpc::outcome(response) else {
            return jsonrpc::error(id, INTERNAL, "the response of the MCP server is invalid");
        };
        if let Some(missing) = &modern.missing
            && (error || results::is_tool_error(outcome))
        {
            return ModernError::missing_capability(missing).response(Some(id));
        }
        if error {
            if may_be_asked(&call.method)
                && jsonrpc::error_code(outcome) == Some(URL_ELICITATION_REQUIRED)
                && let Some(line) = self.url_questions(call, modern, outcome)
            {
                return line;
            }
            let uri = modern.name.as_deref().filter(|_| &*call.method == "resources/read");
            return jsonrpc::error_text(id, &results::translate_error(outcome, uri));
        }
        let server_info = self.handshake.server_info();
        let task = modern.task.then(|| json::member(outcome, "task")).flatten();
        let task = task.map(|at| &outcome[at]);
        let result = if &*call.method == "server/discover" {
            results::discover(outcome)
        } else if let Some((task, id)) = task.and_then(|task| Some((task, self.client_task_id(task)?))) {
            results::created_task(task, &id, server_info)
        } else {
            results::complete(&call.method, outcome, server_info)
        };
        match result {
            Some(result) => jsonrpc::result(id, &result),
            None => jsonrpc::error(id, INTERNAL, "the result of the MCP server is not an object"),
        }
    }

    /// The questions of an error that names pages to visit. The server has ended the request, so
    /// the retry is a new one.
    fn url_questions(&self, call: &Call, modern: &ModernCall, error: &str) -> Option<Bytes> {
        self.config.state_sealer.as_ref()?;
        let data: serde_json::Value = serde_json::from_str(&error[json::member(error, "data")?]).ok()?;
        let mut questions = Vec::new();
        for (at, elicitation) in data.get("elicitations")?.as_array()?.iter().enumerate() {
            let mut params = elicitation.as_object()?.clone();
            params.insert("mode".into(), "url".into());
            let text = serde_json::Value::from(params).to_string();
            let params = Object::parse(&text)?;
            if let Some(missing) = modern.capabilities.missing(ELICITATION, &params) {
                let error = ModernError::missing_capability(&missing);
                return Some(error.response(Some(call.id.raw())));
            }
            let params = input::question_params(&params, false)?;
            let key = input::key(None, ELICITATION, at + 1).into_owned();
            questions.push((key, input::question(ELICITATION, Some(&params))));
        }
        if questions.is_empty() {
            return None;
        }
        let state = self.seal_state(None, modern.round, modern.content);
        let questions = questions.iter().map(|(key, request)| (&**key, request.clone()));
        let result = results::input_required(questions, &state, self.handshake.server_info());
        Some(jsonrpc::result(call.id.raw(), &result))
    }
}
