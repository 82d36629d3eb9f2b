//! The steps of a schedule, the checks after each, and the end.

use super::{requests::refusal, *};

impl Simulation {
    pub(super) fn step(&mut self) {
        match self.rng.usize(..60) {
            0..=9 => self.request(),
            10..=11 => self.repeat(),
            12 => self.batch(),
            13..=18 => _ = self.answer(),
            19 => self.answer_elsewhere(),
            20..=21 => self.answer_own(),
            22..=25 => self.ask(),
            26 => self.cancel_question(),
            27..=29 => self.answer_question(),
            30 => self.report_progress(),
            31..=32 => self.say_something(),
            33..=34 => self.say_progress(),
            35 => self.ping(),
            36 => self.write_invalid(),
            37 => self.notify(),
            38..=39 => self.listen(),
            40..=41 => self.disconnect(),
            42..=44 => self.resume_one(),
            45 => self.replace_reader(),
            46 => self.begin_some_events(),
            47 => self.break_one(),
            48 => self.cancel(),
            49 => self.start_link(),
            50..=51 => self.attach(),
            52 => self.retire(),
            53 => self.crash(),
            54 if self.once_in(4) => self.restart(),
            55 if self.once_in(2) => {
                self.refuse();
                // The exchange may decide on events at the same moment.
                self.begin_some_events();
            }
            56 => self.initialize_again(),
            _ => {
                let seconds = self.pick(&[1, 4, 9, 25]).expect("times");
                self.advance(Duration::from_secs(seconds));
            }
        }
        if !self.once_in(3) {
            for link in self.links.keys().copied().collect::<Vec<_>>() {
                if self.links.contains_key(&link) {
                    self.transfer(link);
                }
            }
            // Sessions have a server for most of the time.
            if self.current.is_none() && self.once_in(2) {
                self.start_link();
                self.answer_own();
                self.attach();
            }
        }
        if !self.once_in(3) {
            self.read_all();
        }
        self.check();
    }

    /// A notification of a client goes to the current server, or nowhere.
    fn notify(&mut self) {
        let (nonce, method) = (self.nonce(), "notifications/roots/list_changed");
        let line = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"nonce":{nonce}}}}}"#);
        self.machine
            .notify(self.now, message(&line), method, true)
            .expect("room");
        if let Some(current) = self.current {
            self.expect_on(current, |link| link.notifications.push(line));
        }
    }

    /// A handshake that is repeated gets its recorded result.
    fn initialize_again(&mut self) {
        let text = r#"{"jsonrpc":"2.0","id":"init","method":"initialize","params":{}}"#;
        let room = self.has_room(1);
        let sent = self
            .machine
            .request(self.now, message(text), id("\"init\""), "initialize", true);
        let Ok(reader) = sent else {
            assert!(!room);
            return;
        };
        let context = Context::from_waker(Waker::noop());
        let mode = self.machine.streams.poll_response_mode(reader, &context);
        let text = format!("{mode:?}");
        assert!(room && text.contains("protocolVersion"), "{text}");
        self.detach(reader);
    }

    /// Checks that the tables are those of the model, and within their limits.
    fn check(&mut self) {
        self.check_questions(false);
        let machine = &mut self.machine;
        self.want = machine.take_requests().want.or(self.want);
        if self.calls.values().any(|call| call.place.is_none()) {
            assert_eq!(
                self.want,
                Some(self.newest),
                "a request waits, and nobody starts a server"
            );
        }
        for link in 1..=self.last_link {
            let (in_flight, expected) = (self.machine.in_flight(link), self.in_flight(link));
            assert_eq!(
                in_flight, expected,
                "link {link} has other entries than {:?}",
                self.calls
            );
        }
        let machine = &self.machine;
        assert_eq!(machine.links.current(), self.current);
        assert_eq!(machine.calls.len(), self.calls.len());
        assert_eq!(machine.streams.count_attached(), self.connections.len());
        assert!(machine.calls.len() <= MAX_IN_FLIGHT && machine.questions.len() <= MAX_QUESTIONS);
        for (task, model) in &self.tasks {
            assert_eq!(machine.tasks.link(&format!("t{task}")), Some(model.link));
        }
        self.check_timers();
        let (messages, bytes) = machine.streams.replay_usage();
        let limits = self.config.replay_buffer;
        assert!(messages <= limits.messages && (messages <= 1 || bytes <= limits.bytes));
    }

    /// Each open entry has exactly one timer.
    fn check_timers(&self) {
        let machine = &self.machine;
        let retained = machine.streams.count_retained();
        let mut counts = (0, 0, 0, 0);
        for (_, timer) in machine.timers.all() {
            match timer {
                Timer::Call(call) => {
                    assert!(machine.calls.get(*call).is_some());
                    counts.0 += 1;
                }
                Timer::Question(_) => counts.1 += 1,
                Timer::Gather(_) | Timer::Round(_) => unreachable!("no client of 2026-07-28"),
                Timer::Stream(stream) => {
                    assert!(machine.streams.is_retained(*stream));
                    counts.2 += 1;
                }
                Timer::Task(_) => counts.3 += 1,
            }
        }
        let expected = (machine.calls.len(), machine.questions.len(), retained, self.tasks.len());
        assert_eq!(counts, expected, "calls, questions, streams, tasks");
    }

    /// Ends everything: each request has an outcome, and nothing is left.
    pub(super) fn end(mut self) {
        while let Some(at) = self.connections.iter().position(|connection| connection.broken) {
            self.disconnect_at(at);
        }
        let closed = match self.rng.usize(..3) {
            0 => self.close(),
            1 => self.answer_all(),
            _ => self.end_all(),
        };
        self.check();
        assert!(self.calls.is_empty());
        self.read_all();
        for connection in std::mem::take(&mut self.connections) {
            assert!(
                self.exchanges[connection.exchange].is_listener,
                "{connection:?} is open"
            );
            self.machine.detach_reader(self.now, connection.reader);
        }
        self.check_questions(true);
        if !closed && self.once_in(4) {
            self.restart();
        }
        for client in std::mem::take(&mut self.disconnected) {
            if !self.exchanges[client.exchange].is_listener {
                self.resume(client);
                self.read_all();
            }
        }
        for exchange in &self.exchanges {
            let read = |outcome: &Outcome| *outcome == Outcome::Read;
            assert!(
                exchange.abandoned || exchange.requests.values().all(read),
                "{exchange:?}"
            );
        }
        self.end_all();
        self.check_empty();
    }

    fn check_empty(mut self) {
        // A listener reads what has waited for one.
        let reader = self.machine.listen(self.now).expect("room");
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = self.machine.poll_event(reader, &context) {}
        self.machine.detach_reader(self.now, reader);
        self.machine.run_timers(self.now + 2 * REPLAY_TIME);
        assert_eq!(self.machine.next_deadline(), None);
        assert!(self.machine.is_blank());
        self.machine.account_memory();
        assert_eq!(self.config.memory.used(), 0);
    }

    /// The session ends.
    fn close(&mut self) -> bool {
        self.machine.close(self.now, &refusal());
        for nonce in self.calls.keys().copied().collect::<Vec<_>>() {
            self.finish(nonce, Outcome::Refused);
        }
        for question in self.questions.values_mut() {
            question.open = false;
        }
        true
    }

    /// A server answers everything.
    fn answer_all(&mut self) -> bool {
        // What such a server has not read, it never answers.
        let closed = self.links.iter().filter(|(_, link)| link.write_closed);
        for link in closed.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.end_link(link);
        }
        while !self.calls.is_empty() {
            if self.current.is_none() {
                while self.links.len() >= MAX_LINKS {
                    let link = self.pick_link().expect("links");
                    self.end_link(link);
                }
                self.start_link();
            }
            self.transfer_all();
            self.answer_own();
            self.attach();
            self.transfer_all();
            while self.answer() {}
        }
        false
    }

    /// All servers end, and there is no other.
    fn end_all(&mut self) -> bool {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.end_link(link);
        }
        self.refuse();
        assert!(self.machine.links.is_empty() && self.machine.calls.is_empty());
        assert!(self.machine.questions.is_empty() && self.machine.tasks.is_empty());
        false
    }
}
