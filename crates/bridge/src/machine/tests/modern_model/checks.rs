//! The steps of a schedule, the checks after each, and the end.

use super::*;

impl Simulation {
    pub(super) fn step(&mut self) {
        match self.rng.usize(..64) {
            0..=9 => self.request(),
            10..=19 => self.retry(),
            20..=29 => self.ask_something(),
            30 => self.cancel_question(),
            31..=34 => _ = self.answer_call(),
            35 => self.answer_elsewhere(),
            36 => self.answer_own(),
            37 => self.write_invalid(),
            38..=39 => self.progress(),
            40 => self.log(),
            41 => self.announce(),
            42..=43 => self.listen(),
            44 => self.tell_status(),
            45 => self.update_task(),
            46 if self.rng.bool() => self.name_task(),
            46 => self.ask_in_a_row(),
            47 => self.ask_task(),
            48..=49 => self.disconnect(),
            50 => self.begin_some_events(),
            51 => self.read_tools(),
            52 if self.rng.bool() => self.start_link(),
            52 => self.rotate(),
            53 => self.attach(),
            54 => self.retire(),
            55 => self.crash(),
            58 => self.park_elsewhere(),
            56 if self.once_in(4) => self.restart(),
            57 if self.once_in(2) => self.refuse(),
            _ => {
                let times = [1, 20, 30, 30, 120, 120, 2_000, 6_000, 15_000, 35_000];
                let time = self.pick(&times).expect("times");
                self.advance(Duration::from_millis(time));
            }
        }
        if !self.once_in(3) && self.once_in(self.reading_steps) {
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                if self.links.contains_key(&link) {
                    self.transfer(link);
                }
            }
        }
        // Sessions have a server for most of the time.
        if self.current.is_none() && self.once_in(3) {
            self.replace_server();
        }
        if !self.once_in(3) {
            self.read_all();
        }
        self.check();
    }

    /// Time passes. Each timer runs at its time, as with the timer task, or later with others.
    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        let late = self.once_in(4);
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            self.now = if late { until } else { self.now.max(due) };
            self.set_clock();
            self.machine.run_timers(self.now);
            self.run_timers();
            self.check();
        }
        self.now = until;
        self.set_clock();
    }

    fn set_clock(&self) {
        let time = u64::try_from(self.now.duration_since(self.begun).as_millis()).expect("a short time");
        self.clock.store(time, Ordering::Relaxed);
    }

    fn run_timers(&mut self) {
        while let Some((at, timer)) = self.timers().pop_first() {
            if at > self.now {
                return;
            }
            let call = |number: u64| self.calls.iter().find(|(_, call)| call.number == number);
            match timer {
                Timer::Call(number) => {
                    let nonce = *call(number).expect("a call").0;
                    self.time_out(nonce);
                }
                Timer::Gather(number) => {
                    let nonce = *call(number).expect("a call").0;
                    self.ask_client(nonce);
                }
                Timer::Question(number) => {
                    let mut questions = self.questions.iter();
                    let found = questions.find(|(_, question)| question.open && question.number == number);
                    let nonce = *found.expect("a question").0;
                    self.reject(nonce);
                }
                Timer::Round(key) => {
                    let round = self.rounds.remove(&key).expect("a round");
                    round.asked.into_iter().for_each(|question| self.reject(question));
                }
                Timer::Task(task) => _ = self.tasks.remove(&task[1..].parse().expect("a number")),
                Timer::Stream(_) => unreachable!("no stream can be resumed"),
            }
        }
    }

    /// The timers that there must be.
    fn timers(&self) -> BTreeSet<(Instant, Timer)> {
        let mut timers = BTreeSet::new();
        for call in self.calls.values() {
            timers.insert((call.deadline, Timer::Call(call.number)));
            if let StageModel::Gathering(_, at) = call.stage {
                timers.insert((at, Timer::Gather(call.number)));
            }
        }
        for question in self.questions.values().filter(|question| question.open) {
            timers.insert((question.deadline, Timer::Question(question.number)));
        }
        for (key, round) in &self.rounds {
            timers.extend(round.outcome.as_ref().map(|(_, until)| (*until, Timer::Round(*key))));
        }
        for (task, model) in &self.tasks {
            timers.insert((model.deadline, Timer::Task(format!("t{task}").into())));
        }
        timers
    }

    /// The owner has no server.
    fn refuse(&mut self) {
        self.machine.refuse(self.now, &refusal());
        for nonce in self.calls_at(None) {
            self.refuse_call(nonce);
        }
    }

    /// Checks that the tables are those of the model, and within their limits.
    fn check(&mut self) {
        let machine = &self.machine;
        let timers: BTreeSet<_> = machine.timers.all().cloned().collect();
        assert_eq!(timers, self.timers(), "other timers");
        for link in 1..=self.last_link {
            assert_eq!(
                machine.in_flight(link),
                self.in_flight(link),
                "other entries on link {link}"
            );
        }
        assert_eq!(machine.links.current(), self.current);
        assert_eq!(machine.calls.len(), self.calls.len());
        assert_eq!(machine.questions.len(), self.open_questions());
        let attached = self.exchanges.iter().filter(|exchange| exchange.attached);
        assert_eq!(machine.streams.count_attached(), attached.count());
        assert!(machine.calls.len() <= MAX_IN_FLIGHT && machine.questions.len() <= MAX_QUESTIONS);
        let parked = machine.calls.parked().len();
        assert_eq!(self.config.parked_calls.count(), parked + self.others.len());
        assert!(parked <= self.config.max_parked && self.subscriptions.len() <= MAX_LISTENERS);
        for call in self.calls.values() {
            let found = machine.calls.get(call.number).expect("a call");
            assert_eq!(found.link(), call.place);
            let Some(modern) = &found.modern else { continue };
            assert_eq!((modern.is_parked(), modern.round), (call.is_parked(), call.round));
            let asked = modern.asked.iter().map(|asked| asked.question);
            assert!(asked.eq(call.asked.iter().map(|asked| self.questions[asked].number)));
        }
    }

    /// Ends everything: each request has an outcome, and nothing is left.
    pub(super) fn end(mut self) {
        match self.rng.usize(..3) {
            0 => self.close(),
            1 => self.end_all(),
            _ => self.finish_all(),
        }
        self.read_all();
        for at in 0..self.exchanges.len() {
            if self.exchanges[at].attached {
                assert_eq!(self.exchanges[at].wanted.method, "subscriptions/listen");
                self.leave(at);
            }
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.end_link(link);
        }
        self.check();
        self.advance(2 * OUTCOME_TIME);
        assert_eq!(self.machine.next_deadline(), None);
        assert!(self.machine.is_blank() && self.calls.is_empty() && self.rounds.is_empty());
        self.machine.account_memory();
        assert_eq!(self.config.memory.used(), 0);
    }

    /// The session ends.
    fn close(&mut self) {
        self.machine.close(self.now, &refusal());
        for question in self.questions.values_mut() {
            question.open = false;
        }
        for nonce in self.calls.keys().copied().collect::<Vec<_>>() {
            let call = &self.calls[&nonce];
            if call.written || call.is_parked() || call.cancelled {
                self.finish(nonce, Outcome::Error);
            } else {
                self.refuse_call(nonce);
            }
        }
        while !self.subscriptions.is_empty() {
            self.end_oldest();
        }
        // Nothing of it has to reach a server.
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.end_link(link);
        }
    }

    /// All servers end, and there is no other.
    fn end_all(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.end_link(link);
        }
        self.refuse();
        assert!(self.machine.calls.is_empty() && self.machine.questions.is_empty());
    }

    /// Servers answer everything, and clients all questions.
    fn finish_all(&mut self) {
        let closed = self.links.iter().filter(|(_, link)| link.write_closed);
        for link in closed.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.end_link(link);
        }
        for _ in 0..3 {
            self.replace_server();
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                self.transfer_with(link, usize::MAX);
            }
            while self.answer_call() {}
        }
        self.read_all();
        assert!(self.calls.is_empty(), "{:?} has no answer", self.calls);
    }
}

fn refusal() -> Refusal {
    Arc::new(std::fmt::Error)
}
