//! The clients of the model: what they answer to questions, and how they go wrong.

use super::questions::has_capability;
use super::{client::*, questions::is_valid, *};
use crate::modern::state::RequestState;

impl Simulation {
    /// A client answers a request for input that it has read, once more perhaps.
    pub(super) fn retry(&mut self) {
        let recent = self.asked.len().saturating_sub(4)..self.asked.len();
        let Some(at) = self.pick(&recent.collect::<Vec<_>>()) else {
            return;
        };
        let client = self.new_client();
        let asked = self.asked[at].clone();
        let again = asked.sent.clone().filter(|_| !self.once_in(4));
        let (answers, text) = again.unwrap_or_else(|| {
            let answers = self.answers(&asked);
            (answers.clone(), to_object(&answers))
        });
        if self.once_in(6) {
            self.wrong_retry(&asked, &client, &text);
            return;
        }
        self.send_retry(&asked, client.clone(), answers.clone(), &text);
        self.asked[at].sent = Some((answers, text));
        if self.once_in(3) {
            // At once from another window, perhaps with other answers.
            let other = Client {
                raw: self.pick(&IDS).expect("ids"),
                ..client
            };
            let (answers, text) = if self.once_in(3) {
                let answers = self.answers(&asked);
                (answers.clone(), to_object(&answers))
            } else {
                self.asked[at].sent.clone().expect("it was sent")
            };
            self.send_retry(&asked, other, answers, &text);
        }
    }

    /// Answers to some or all questions, some of which are invalid, and to others.
    fn answers(&mut self, asked: &Asked) -> BTreeMap<String, String> {
        let mut answers = BTreeMap::new();
        for (key, question) in &asked.questions {
            let method = self.questions[question].method;
            match self.rng.usize(..8) {
                0 => {}
                1 => {
                    let nonce = self.nonce();
                    answers.insert(key.clone(), format!(r#"{{"n":{nonce}}}"#));
                }
                _ => _ = answers.insert(key.clone(), self.some_answer(method)),
            }
        }
        if self.once_in(3) {
            let others = [
                "user",
                "name",
                "elicitation-1",
                "elicitation-2",
                "elicitation-3",
                "roots-2",
            ];
            let key = self.pick(&others).expect("keys").to_owned();
            let answer = self.some_answer("elicitation/create");
            answers.entry(key).or_insert(answer);
        }
        answers
    }

    /// A retry that is not the one that the state was made for changes nothing.
    fn wrong_retry(&mut self, asked: &Asked, client: &Client, text: &str) {
        let (wanted, state) = (asked.wanted, &*asked.state);
        let invalid = ["-32602"];
        match self.rng.usize(..6) {
            0 => {
                let arguments = wanted.arguments + 1;
                let other = Wanted { arguments, ..wanted };
                self.rejected(client.request(&other, Some(text), Some(state)), &invalid);
            }
            1 => {
                let name = if wanted.name == Some("a") { "b" } else { "a" };
                let name = Some(name);
                let other = Wanted { name, ..wanted };
                self.rejected(client.request(&other, Some(text), Some(state)), &invalid);
            }
            2 => {
                let mut tampered = state.to_owned();
                let at = self.rng.usize(..tampered.len() - 1);
                let other = if tampered[at..].starts_with('A') { "B" } else { "A" };
                tampered.replace_range(at..=at, other);
                self.rejected(client.request(&wanted, Some(text), Some(&tampered)), &invalid);
                self.rejected(client.request(&wanted, Some(text), Some("")), &invalid);
            }
            3 => self.rejected(client.request(&wanted, Some(r#"{"user":1}"#), Some(state)), &invalid),
            4 => {
                // The same session of another grant could only be reached by a fault.
                let config = self.config.clone();
                let snapshot = self.machine.snapshot().expect("a handshake");
                let mut other = StateMachine::new(config, "tag", "other", Some(&snapshot));
                let request = client.request(&wanted, Some(text), Some(state));
                let error = other.modern_request(self.now, request).expect_err("an error");
                assert_error(&error, &id(client.raw), &invalid);
            }
            _ => {
                let state = RequestState {
                    tag: "tag".into(),
                    epoch: 0,
                    call: asked.call.map(|(_, number, _)| number),
                    round: 0,
                    content: wanted.content(),
                };
                let sealer = self.config.state_sealer.clone().expect("a sealer");
                let foreign = state.seal(&*sealer, "other", PARK_TIME);
                self.rejected(client.request(&wanted, Some(text), Some(&foreign)), &invalid);
                if state.call.is_some() {
                    // It is of another instance.
                    let old = state.seal(&*sealer, "grant", PARK_TIME);
                    let texts: &[&str] = if self.has_room(0) {
                        &["-32602", r#"{"reason":"lost"}"#]
                    } else {
                        &["too many"]
                    };
                    self.rejected(client.request(&wanted, Some(text), Some(&old)), texts);
                }
            }
        }
    }

    fn send_retry(&mut self, asked: &Asked, client: Client, answers: BTreeMap<String, String>, text: &str) {
        let wanted = asked.wanted;
        let request = client.request(&wanted, Some(text), Some(&asked.state));
        if asked.expires <= self.now {
            self.rejected(request, &["-32602"]);
            return;
        }
        let Some((nonce, number, round)) = asked.call else {
            self.begin(request, wanted, client, answers);
            return;
        };
        if !self.has_room(0) {
            self.rejected(request, &["-32603", "too many"]);
            return;
        }
        let call = self.calls.get(&nonce).filter(|_| asked.instance == self.instance);
        if call.is_some_and(|call| call.is_parked() && call.round == round) {
            let reader = self.machine.modern_request(self.now, request).expect("a parked call");
            self.resume_call(reader, nonce, client, answers, text);
            return;
        }
        let is_known = call.is_some();
        let current = asked.instance == self.instance;
        let known = self.rounds.get_mut(&(number, round)).filter(|_| current);
        let known = known.filter(|round| round.answers.as_ref().is_none_or(|answers| answers == text));
        let Some(known) = known else {
            let reason = if is_known { "spent" } else { "lost" };
            self.rejected(request, &["-32602", &format!(r#"{{"reason":"{reason}"}}"#)]);
            return;
        };
        known.answers = Some(text.to_owned());
        let (outcome, questions) = (known.outcome.clone(), std::mem::take(&mut known.asked));
        let reader = self.machine.modern_request(self.now, request).expect("a known round");
        let raw = client.raw;
        let exchange = self.open(reader, wanted, raw, Some(nonce));
        match outcome {
            Some((outcome, _)) => self.settle(exchange, outcome),
            None => {
                let round = self.rounds.get_mut(&(number, round)).expect("a round");
                round.followers.push((exchange, client));
            }
        }
        for question in questions
            .into_iter()
            .filter(|question| self.questions[question].open)
            .collect::<Vec<_>>()
        {
            let model = &self.questions[&question];
            match answers.get(&model.key) {
                Some(answer) if is_valid(model.method, answer) => self.answer(question, answer),
                _ => self.reject(question),
            }
        }
    }

    /// A parked call goes on with the answers of its client.
    fn resume_call(
        &mut self,
        reader: Reader,
        nonce: Nonce,
        client: Client,
        mut answers: BTreeMap<String, String>,
        text: &str,
    ) {
        let exchange = self.open(reader, self.calls[&nonce].wanted, client.raw, Some(nonce));
        let deadline = self.now + REQUEST_TIMEOUT;
        let token = client.token.clone();
        let call = self.call(nonce);
        let answered = (call.number, call.round);
        call.round += 1;
        call.missing = false;
        (call.stage, call.deadline) = (StageModel::Running, deadline);
        (call.exchange, call.client) = (Some(exchange), client);
        let (asked, held, link) = (std::mem::take(&mut call.asked), call.held.take(), call.place);
        let round = RoundModel {
            answers: Some(text.to_owned()),
            ..RoundModel::default()
        };
        assert!(
            self.rounds.insert(answered, round).is_none(),
            "a round is answered twice"
        );
        self.set_level(link.expect("a parked call has a link"));
        let mut open = Vec::new();
        for question in asked {
            let model = &self.questions[&question];
            // A key that was made here means nothing before the client knows it.
            let answer = (model.shown || model.hinted).then(|| answers.remove(&model.key));
            match answer.flatten() {
                Some(answer) if is_valid(model.method, &answer) => self.answer(question, &answer),
                // The retry declares less than the request before it.
                _ if !has_capability(self.calls[&nonce].client.capabilities, model.method) => {
                    self.call(nonce).missing = true;
                    self.reject(question);
                }
                _ => open.push(question),
            }
        }
        let asks = !open.is_empty();
        let call = self.call(nonce);
        (call.asked, call.ready) = (open, answers);
        if let (Some(held), Some(token)) = (held, token) {
            self.expect_note(exchange, held, &format!(r#""progressToken":{token}"#));
        }
        if asks {
            self.gather(nonce);
        }
    }
}
