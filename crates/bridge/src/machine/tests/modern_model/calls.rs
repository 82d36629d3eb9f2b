//! The model of calls: where each is, and how it ends.

use super::*;

impl Wanted {
    /// A request of the conversation itself, whose response stays as it is.
    pub(super) fn is_internal(&self) -> bool {
        self.task.is_some()
    }

    /// A server may ask about it.
    pub(super) fn may_be_asked(&self) -> bool {
        matches!(self.method, "tools/call" | "resources/read")
    }

    fn is_repeatable(&self) -> bool {
        matches!(self.method, "resources/read" | "completion/complete")
    }

    pub(super) fn content(&self) -> [u8; 16] {
        let mut content = [0; 16];
        let mut hasher = DefaultHasher::new();
        (self.method, self.name, self.arguments).hash(&mut hasher);
        content[..8].copy_from_slice(&hasher.finish().to_be_bytes());
        content
    }
}

impl CallModel {
    pub(super) fn is_parked(&self) -> bool {
        self.parked_since().is_some()
    }

    pub(super) fn parked_since(&self) -> Option<Instant> {
        match self.stage {
            StageModel::Parked(since) => Some(since),
            StageModel::Running | StageModel::Gathering(..) => None,
        }
    }

    pub(super) fn is_asking(&self) -> bool {
        self.wanted.may_be_asked() && !self.cancelled && self.place.is_some()
    }
}

impl Simulation {
    pub(super) fn call(&mut self, nonce: Nonce) -> &mut CallModel {
        self.calls.get_mut(&nonce).expect("a call")
    }

    pub(super) fn has_room(&self, requests: usize) -> bool {
        let attached = self.exchanges.iter().filter(|exchange| exchange.attached).count();
        self.calls.len() + requests <= MAX_IN_FLIGHT && attached < MAX_IN_FLIGHT + MAX_LISTENERS
    }

    /// The calls at a place, oldest first.
    pub(super) fn calls_at(&self, place: Option<LinkNumber>) -> Vec<Nonce> {
        let found = self.calls.iter().filter(|(_, call)| call.place == place);
        let mut found: Vec<_> = found.map(|(nonce, call)| (call.number, *nonce)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, nonce)| nonce).collect()
    }

    /// Places a call that waits, if there is a link for it.
    pub(super) fn place(&mut self, nonce: Nonce) {
        let task = self.calls[&nonce].wanted.task;
        let of_task = task.and_then(|task| self.tasks.get(&task)).map(|task| task.link);
        let of_task = of_task.filter(|link| !self.links[link].write_closed);
        let Some(link) = of_task.or(self.current) else { return };
        let deadline = self.now + REQUEST_TIMEOUT;
        let call = self.call(nonce);
        (call.place, call.written, call.deadline) = (Some(link), false, deadline);
        self.set_level(link);
        if self.calls[&nonce].is_asking() {
            let held = |question: &QuestionModel| {
                question.open && question.link == link && question.call.is_none() && question.task.is_none()
            };
            let held = self.questions.iter().filter(|(_, question)| held(question));
            let mut held: Vec<_> = held.map(|(nonce, question)| (question.number, *nonce)).collect();
            held.sort_unstable();
            for (_, question) in held {
                self.ask(question, nonce);
            }
        }
    }

    pub(super) fn place_waiting(&mut self) {
        for nonce in self.calls_at(None) {
            self.place(nonce);
        }
    }

    /// The server of a link has the most verbose level that its calls want, from the time at which
    /// one begins or goes on.
    pub(super) fn set_level(&mut self, link: LinkNumber) {
        let calls = self.calls.values().filter(|call| call.place == Some(link));
        let Some(level) = calls.filter_map(|call| call.client.level).min() else {
            return;
        };
        self.expect_on(link, |link| {
            if link.level.replace(level) != Some(level) {
                let setting = ClientSetting::LogLevel(LEVELS[level].into());
                link.settings.push_back(setting);
            }
        });
    }

    /// A line for the server of a link is due, unless it no longer reads.
    pub(super) fn expect_on(&mut self, link: LinkNumber, expect: impl FnOnce(&mut LinkModel)) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.write_closed) {
            expect(link);
        }
    }

    /// A call ends with an outcome.
    pub(super) fn finish(&mut self, nonce: Nonce, outcome: Outcome) {
        let mut call = self.calls.remove(&nonce).expect("a call");
        let mut asked = std::mem::take(&mut call.asked);
        asked.retain(|question| self.questions[question].open);
        let fails = matches!(outcome, Outcome::ServerError(_) | Outcome::Error | Outcome::Urls { .. });
        let outcome = if fails && call.missing {
            Outcome::MissingCapability
        } else {
            outcome
        };
        if call.is_parked() {
            self.keep_outcome((call.number, call.round), &outcome, PARK_TIME);
            self.rounds.get_mut(&(call.number, call.round)).expect("kept").asked = asked;
            return;
        }
        if let Some(exchange) = call.exchange {
            self.settle(exchange, outcome.clone());
        }
        if let Some(answered) = call.round.checked_sub(1) {
            self.keep_outcome((call.number, answered), &outcome, OUTCOME_TIME);
        }
        // They are about other calls.
        for question in asked {
            let link = self.questions[&question].link;
            match self.asking_call(link) {
                Some(other) => self.ask(question, other),
                None => self.reject(question),
            }
        }
    }

    /// The owner has no server for a call.
    pub(super) fn refuse_call(&mut self, nonce: Nonce) {
        let exchange = self.calls[&nonce].exchange.expect("a waiting call has a client");
        if self.exchanges[exchange].is_streaming || !self.exchanges[exchange].due.is_empty() {
            // It is too late for an HTTP status.
            return self.finish(nonce, Outcome::Error);
        }
        self.close_asked(nonce);
        let call = self.calls.remove(&nonce).expect("a call");
        self.settle(exchange, Outcome::Refused);
        let answered = call.round.checked_sub(1);
        let round = answered.and_then(|answered| self.rounds.remove(&(call.number, answered)));
        for (follower, _) in round.map(|round| round.followers).unwrap_or_default() {
            self.settle(follower, Outcome::Refused);
        }
    }

    /// A client has the outcome of its request to read.
    pub(super) fn settle(&mut self, exchange: usize, outcome: Outcome) {
        let exchange = &mut self.exchanges[exchange];
        let before = std::mem::replace(&mut exchange.outcome, outcome);
        assert_eq!(before, Outcome::Open, "{exchange:?} ends twice");
    }

    /// The open questions about a call get errors.
    pub(super) fn close_asked(&mut self, nonce: Nonce) {
        for question in std::mem::take(&mut self.call(nonce).asked) {
            self.reject(question);
        }
    }

    /// A call is no longer on the link whose server has asked about it.
    fn leave_link(&mut self, nonce: Nonce) {
        self.close_asked(nonce);
        let call = self.call(nonce);
        (call.place, call.written, call.stage) = (None, false, StageModel::Running);
    }

    /// The client of a call has left. Another one that waits for the same outcome takes its place.
    pub(super) fn abandon(&mut self, nonce: Nonce) {
        let call = &self.calls[&nonce];
        let round = call.round.checked_sub(1).map(|round| (call.number, round));
        let round = round.and_then(|round| self.rounds.get_mut(&round));
        if let Some((exchange, client)) = round.and_then(|round| round.followers.pop()) {
            let call = self.call(nonce);
            (call.exchange, call.client) = (Some(exchange), client);
            if let Some(link) = call.place {
                self.set_level(link);
            }
            return;
        }
        self.close_asked(nonce);
        let grace = self.now + CANCEL_GRACE;
        let call = self.call(nonce);
        (call.exchange, call.cancelled, call.stage) = (None, true, StageModel::Running);
        let (number, place) = (call.number, call.place);
        let Some(link) = place else {
            self.finish(nonce, Outcome::Error);
            return;
        };
        call.deadline = call.deadline.min(grace);
        self.expect_on(link, |link| link.cancellations.push(number));
    }

    pub(super) fn time_out(&mut self, nonce: Nonce) {
        let call = &self.calls[&nonce];
        let (number, link) = (call.number, call.place.filter(|_| !call.cancelled));
        if let Some(link) = link {
            self.expect_on(link, |link| link.cancellations.push(number));
        }
        if self.calls[&nonce].is_parked() {
            self.close_asked(nonce);
            self.calls.remove(&nonce);
        } else {
            self.finish(nonce, Outcome::Error);
        }
    }

    /// Decides about a call whose link has ended.
    pub(super) fn settle_call(&mut self, nonce: Nonce) {
        let call = self.call(nonce);
        if call.cancelled {
            self.finish(nonce, Outcome::Error);
        } else if call.is_parked() {
            self.calls.remove(&nonce);
        } else if !call.written || (call.wanted.is_repeatable() && call.questions == 0 && call.resends < MAX_RESENDS) {
            call.resends += u8::from(call.written);
            self.leave_link(nonce);
        } else {
            self.finish(nonce, Outcome::Error);
        }
    }

    /// Decides about a call on a link whose server no longer reads.
    pub(super) fn settle_unwritten(&mut self, nonce: Nonce) {
        let call = &self.calls[&nonce];
        if call.written {
            return;
        }
        if call.cancelled {
            self.finish(nonce, Outcome::Error);
        } else if call.is_parked() {
            self.close_asked(nonce);
            self.calls.remove(&nonce);
        } else {
            self.leave_link(nonce);
        }
    }
}
