//! The model of rounds: questions that go to the client, and outcomes that are kept.

use super::*;

impl Simulation {
    /// Keeps an outcome for retries of a round that come later. Those that wait get it now.
    pub(super) fn keep_outcome(&mut self, key: (u64, u32), outcome: &Outcome, time: Duration) {
        let until = self.now + time;
        let round = self.rounds.entry(key).or_default();
        round.outcome = Some((outcome.clone(), until));
        for (follower, _) in std::mem::take(&mut round.followers) {
            self.settle(follower, outcome.clone());
        }
    }

    /// The questions about a call go to its client soon, with those that follow at once.
    pub(super) fn gather(&mut self, nonce: Nonce) {
        let now = self.now;
        let call = self.call(nonce);
        let first = match call.stage {
            StageModel::Running => now,
            StageModel::Gathering(first, _) => first,
            StageModel::Parked(_) => return,
        };
        let at = (now + GATHER_TIME).min(first + MAX_GATHER_TIME);
        call.stage = StageModel::Gathering(first, at);
    }

    /// The questions about a call go to its client.
    pub(super) fn ask_client(&mut self, nonce: Nonce) {
        if self.calls[&nonce].asked.is_empty() {
            self.call(nonce).stage = StageModel::Running;
            return;
        }
        let mut parked = self.parked();
        while parked.len() >= self.config.max_parked || parked.len() + self.others.len() >= MAX_PARKED {
            let Some((_, _, oldest)) = parked.pop_first() else {
                // Other conversations have taken all places.
                self.close_asked(nonce);
                self.call(nonce).stage = StageModel::Running;
                return;
            };
            self.time_out(oldest);
        }
        let now = self.now;
        let call = self.call(nonce);
        (call.stage, call.deadline) = (StageModel::Parked(now), now + PARK_TIME);
        let (exchange, number, round) = (call.exchange.take(), call.number, call.round);
        let mut questions = BTreeMap::new();
        for question in call.asked.clone() {
            let model = self.questions.get_mut(&question).expect("a question");
            model.shown = true;
            let before = questions.insert(model.key.clone(), question);
            assert_eq!(before, None, "two questions have one key");
        }
        let outcome = Outcome::Asks {
            round: (number, round),
            until: now + PARK_TIME,
            questions,
        };
        self.settle(exchange.expect("a client"), outcome.clone());
        if let Some(answered) = round.checked_sub(1) {
            self.keep_outcome((number, answered), &outcome, OUTCOME_TIME);
        }
    }

    /// The parked calls, in the order in which they were parked.
    pub(super) fn parked(&self) -> BTreeSet<(Instant, u64, Nonce)> {
        let calls = self.calls.iter();
        let parked = calls.filter_map(|(nonce, call)| Some((call.parked_since()?, call.number, *nonce)));
        parked.collect()
    }

    /// A call of another conversation is parked, or one goes on.
    pub(super) fn park_elsewhere(&mut self) {
        let taken = self.parked().len() + self.others.len();
        if self.rng.bool() {
            self.others.pop();
        } else if let Some(place) = self.config.parked_calls.take() {
            assert!(taken < MAX_PARKED);
            self.others.push(place);
        } else {
            assert_eq!(taken, MAX_PARKED);
        }
    }
}
