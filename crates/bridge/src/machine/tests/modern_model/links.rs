//! The links of the model: how they come and go, and the snapshot.

use super::*;

impl Simulation {
    pub(super) fn start_link(&mut self) {
        if self.links.len() >= MAX_LINKS {
            return;
        }
        self.last_link += 1;
        assert!(self.machine.start_link(self.last_link));
        self.links.insert(self.last_link, LinkModel::default());
    }

    /// Attaches a link whose handshake is done. Nothing happens if a newer one was attached before.
    pub(super) fn attach(&mut self) {
        let ready = self.links.iter().filter(|(_, link)| link.ready);
        let ready: Vec<_> = ready.map(|(number, _)| *number).collect();
        let fresh: Vec<_> = ready.iter().copied().filter(|link| *link > self.newest).collect();
        let Some(number) = self.pick(&fresh).or_else(|| self.pick(&ready)) else {
            return;
        };
        assert!(matches!(self.machine.replayed(number), Some(Ok(()))));
        self.machine.attach(self.now, number);
        if number <= self.newest {
            return;
        }
        self.newest = number;
        self.current = Some(number).filter(|number| !self.links[number].write_closed);
        for uri in self.subscribed() {
            let setting = ClientSetting::Subscribe(uri.into());
            self.expect_on(number, |link| link.settings.push_back(setting));
        }
        self.place_waiting();
    }

    /// Another server takes over, if none serves the session.
    pub(super) fn replace_server(&mut self) {
        while self.current.is_none() {
            if self.links.len() >= MAX_LINKS {
                let link = self.pick_link().expect("links");
                self.end_link(link);
            }
            self.rotate();
        }
    }

    /// Another server takes over, if there is room for one.
    pub(super) fn rotate(&mut self) {
        if self.links.len() >= MAX_LINKS {
            return;
        }
        self.start_link();
        let link = self.last_link;
        self.transfer_with(link, usize::MAX);
        while self.links.get(&link).is_some_and(|model| !model.ready) {
            self.answer_own();
        }
        self.attach();
    }

    pub(super) fn retire(&mut self) {
        let Some(link) = self.pick_link() else { return };
        let idle = self.in_flight(link) == 0;
        if self.rng.bool() {
            assert_eq!(self.machine.retire_if_idle(link), idle);
            if !idle {
                return;
            }
        } else {
            self.machine.detach(link);
        }
        self.current = self.current.filter(|current| *current != link);
    }

    pub(super) fn crash(&mut self) {
        let Some(link) = self.pick_link() else { return };
        if self.once_in(3) {
            self.close_write(link);
        } else {
            self.end_link(link);
        }
    }

    /// The server of a link no longer reads.
    pub(super) fn close_write(&mut self, number: LinkNumber) {
        self.machine.close_write(self.now, number);
        self.current = self.current.filter(|current| *current != number);
        let link = self.links.get_mut(&number).expect("a link");
        link.write_closed = true;
        link.settings.clear();
        link.task_results.clear();
        link.responses.clear();
        link.cancellations.clear();
        for nonce in self.calls_at(Some(number)) {
            self.settle_unwritten(nonce);
        }
        self.place_waiting();
    }

    /// A link ends, and with it its questions and tasks.
    pub(super) fn end_link(&mut self, number: LinkNumber) {
        self.machine.end_link(self.now, number);
        self.links.remove(&number);
        self.current = self.current.filter(|current| *current != number);
        self.tasks.retain(|_, task| task.link != number);
        let of_link = self
            .questions
            .iter()
            .filter(|(_, question)| question.link == number && question.open);
        for question in of_link.map(|(nonce, _)| *nonce).collect::<Vec<_>>() {
            self.close_question(question);
        }
        for nonce in self.calls_at(Some(number)) {
            self.settle_call(nonce);
        }
        self.place_waiting();
    }

    /// A later instance takes the conversation over, which knows none of the calls and streams.
    pub(super) fn restart(&mut self) {
        let snapshot = self.machine.snapshot().expect("a handshake");
        let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
        self.machine = StateMachine::new(self.config.clone(), "tag", "grant", Some(&snapshot));
        assert!(self.machine.is_blank());
        self.instance += 1;
        (self.current, self.newest, self.tools_known) = (None, 0, false);
        self.links.clear();
        self.calls.clear();
        self.readers.clear();
        self.rounds.clear();
        self.tasks.clear();
        self.subscriptions.clear();
        self.askers.clear();
        for question in self.questions.values_mut() {
            question.open = false;
        }
        for exchange in &mut self.exchanges {
            exchange.attached = false;
        }
        self.replace_server();
    }

    /// The calls, questions and tasks of a link.
    pub(super) fn in_flight(&self, link: LinkNumber) -> usize {
        let questions = self
            .questions
            .values()
            .filter(|question| question.open && question.link == link);
        let tasks = self.tasks.values().filter(|task| task.busy && task.link == link);
        self.calls_at(Some(link)).len() + questions.count() + tasks.count()
    }
}
