//! Retries: requests that bring the answers to questions (MCP 2026-07-28, "Multi Round-Trip
//! Requests").
//!
//! A retry has to name the call, the round, and the same method, name and arguments. Each round is
//! answered once. A retry with equal answers may come again: it gets the outcome of the first.

use tokio::time::Instant;

use super::super::StateMachine;
use crate::{
    error::Refusal,
    jsonrpc::{self, Envelope, object::Object},
    modern::{ModernError, ModernRequest, error::INTERNAL, input, input::InputResponses, state::RequestState},
    streams::Reader,
    tables::{
        calls::Call,
        modern_calls::{Follower, Stage},
        timers::Timer,
    },
};

impl StateMachine {
    pub(super) fn retry(
        &mut self,
        now: Instant,
        request: ModernRequest,
        state: &str,
        answers: InputResponses,
    ) -> Result<Reader, ModernError> {
        let invalid = || ModernError::request_state(None);
        let modern = self.modern.as_ref().ok_or_else(invalid)?;
        let sealer = self.config.state_sealer.as_ref().ok_or_else(invalid)?;
        let Some(state) = RequestState::open(state, &**sealer, &modern.principal) else {
            self.config.era_counts.note_invalid_state();
            return Err(invalid());
        };
        if state.content != request.content {
            return Err(invalid());
        }
        let Some(number) = state.call else {
            return self.begin_modern(now, request, answers);
        };
        self.check_room(0).map_err(|reason| ModernError::rejected(&reason))?;
        if state.epoch != modern.epoch || state.tag != modern.tag {
            return Err(ModernError::request_state(Some("lost")));
        }
        let key = (number, state.round);
        let call = self.calls.get(number).and_then(|call| call.modern.as_ref());
        if call.is_some_and(|call| call.is_parked() && call.round == state.round) {
            return Ok(self.resume_call(now, number, request, answers));
        }
        let known = call.is_some();
        match self.follow(now, key, &request, &answers) {
            Some(reader) => Ok(reader),
            None => Err(ModernError::request_state(Some(if known { "spent" } else { "lost" }))),
        }
    }

    /// Lets a parked call go on with the answers of its client.
    fn resume_call(
        &mut self,
        now: Instant,
        number: u64,
        request: ModernRequest,
        mut answers: InputResponses,
    ) -> Reader {
        let reader = self.streams.open_private(&request.id);
        if let Some(modern) = &mut self.modern
            && let Some(call) = self.calls.get_mut(number)
            && let Some(parked) = call.modern.as_mut()
        {
            modern.rounds.begin((number, parked.round), answers.digest);
            parked.round += 1;
            parked.stage = Stage::Running;
            parked.place = None;
            parked.missing = None;
            parked.capabilities = request.capabilities;
            parked.log_level = request.log_level;
            call.id = request.id;
            call.token = request.token;
            call.stream = reader.stream;
        }
        self.timers.set(Timer::Call(number), now + self.config.request_timeout);
        if let Some(link) = self.calls.get(number).and_then(|call| call.link()) {
            self.before_modern_call(number, link);
        }
        let mut open = Vec::new();
        for asked in self.calls.take_asked(number) {
            let params = asked.params.as_deref().and_then(Object::parse).unwrap_or_default();
            let answer = asked.known.then(|| answers.answers.remove(&asked.key));
            match answer.flatten() {
                Some(answer) if input::is_valid(&asked.method, &answer) => {
                    self.answer_question(asked.question, &answer);
                }
                // The retry may declare less than the request before it.
                _ if self.reject_missing(number, asked.question, &asked.method, &params) => {}
                _ => open.push(asked),
            }
        }
        let asks = !open.is_empty();
        self.calls.keep_answers(number, answers.answers);
        let mut progress = None;
        if let Some(call) = self.calls.get_mut(number)
            && let Some(modern) = call.modern.as_mut()
        {
            modern.asked = open;
            let line = |held: Envelope| Some(held.with_param("progressToken", call.token.as_ref()?.raw()));
            progress = modern.progress.take().and_then(line);
        }
        if let Some(line) = progress {
            self.streams.notify(reader.stream, line);
        }
        if asks {
            self.gather(now, number);
        }
        self.config.era_counts.note_round();
        reader
    }

    /// The outcome of a retry that has come before with equal answers.
    fn follow(
        &mut self,
        now: Instant,
        key: (u64, u32),
        request: &ModernRequest,
        answers: &InputResponses,
    ) -> Option<Reader> {
        let round = self.modern.as_mut()?.rounds.get_mut(key)?;
        if *round.answers.get_or_insert(answers.digest) != answers.digest {
            return None;
        }
        let asked = std::mem::take(&mut round.asked);
        let reader = self.streams.open_private(&request.id);
        match round.response.clone() {
            None => round.followers.push(Follower {
                id: request.id.clone(),
                stream: reader.stream,
                token: request.token.clone(),
                capabilities: request.capabilities.clone(),
                log_level: request.log_level,
            }),
            Some(response) => {
                let message = Envelope::parse(&response).ok()?;
                let line = message.with_id(request.id.raw());
                self.put_response(now, reader.stream, request.id.raw(), line);
            }
        }
        for asked in asked {
            match answers.answers.get(&asked.key) {
                Some(answer) if input::is_valid(&asked.method, answer) => {
                    self.answer_question(asked.question, answer);
                }
                _ => self.reject_questions(&[asked]),
            }
        }
        Some(reader)
    }

    /// Ends the retries that wait for the outcome of a call that gets no server.
    pub(in crate::machine) fn refuse_followers(&mut self, now: Instant, call: &Call, why: &Refusal) {
        let answered = call.modern.as_ref().and_then(|modern| {
            let answered = modern.round.checked_sub(1)?;
            Some((modern.number, answered))
        });
        let round = answered.and_then(|key| self.modern.as_mut()?.rounds.remove(key));
        for follower in round.into_iter().flat_map(|round| round.followers) {
            if !self.streams.refuse(follower.stream, why) {
                let id = follower.id.raw();
                let error = jsonrpc::error(id, INTERNAL, &why.to_string());
                self.put_response(now, follower.stream, id, error);
            }
        }
    }
}
