//! The model of requests in flight: where each is, and how it ends.

use super::*;

impl Simulation {
    /// The request in flight with an id, among those with a session id.
    pub(super) fn by_id(&self, raw: &str) -> Option<Nonce> {
        let mut calls = self.all_with_id(raw).into_iter();
        calls.find(|nonce| self.calls[nonce].keyed)
    }

    /// The requests in flight with an id.
    pub(super) fn all_with_id(&self, raw: &str) -> Vec<Nonce> {
        let key = id(raw);
        let with_id = self.calls.iter().filter(|(_, call)| id(call.raw).key() == key.key());
        with_id.map(|(nonce, _)| *nonce).collect()
    }

    pub(super) fn has_room(&self, requests: usize) -> bool {
        self.calls.len() + requests <= MAX_IN_FLIGHT && self.connections.len() < MAX_IN_FLIGHT + MAX_LISTENERS
    }

    /// Places a request that waits, if there is a link for it.
    pub(super) fn place(&mut self, nonce: Nonce) {
        let action = self.calls[&nonce].action;
        let of_task = if let Action::TaskResult(task) = action {
            let link = self.tasks.get(&task).map(|task| task.link);
            link.filter(|link| !self.links[link].write_closed)
        } else {
            None
        };
        let Some(link) = of_task.or(self.current) else { return };
        let deadline = self.now + REQUEST_TIMEOUT;
        let call = self.calls.get_mut(&nonce).expect("a call");
        (call.place, call.written, call.deadline) = (Some(link), false, deadline);
        if let Some(exchange) = call.exchange {
            self.exchanges[exchange].links.insert(link);
        }
    }

    pub(super) fn place_waiting(&mut self) {
        for nonce in self.all_on(None) {
            self.place(nonce);
        }
    }

    /// The requests on a link, or those that wait, oldest first.
    pub(super) fn all_on(&self, place: Option<LinkNumber>) -> Vec<Nonce> {
        let found = self.calls.iter().filter(|(_, call)| call.place == place);
        let mut found: Vec<_> = found.map(|(nonce, call)| (call.number, *nonce)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, nonce)| nonce).collect()
    }

    /// A request ends: from now on its client has to read the outcome.
    pub(super) fn finish(&mut self, nonce: Nonce, outcome: Outcome) {
        let call = self.calls.remove(&nonce).expect("a call");
        let of_stream = self.calls.values().filter(|other| other.stream == call.stream).count();
        if let Some(exchange) = call.exchange {
            let exchange = &mut self.exchanges[exchange];
            let before = exchange.requests.insert(call.raw, outcome);
            assert_eq!(before, Some(Outcome::Open), "{call:?} ends twice");
            if of_stream == 0 {
                exchange.settled_at = Some(self.now);
            }
        }
    }

    /// Decides about a request whose link has ended.
    pub(super) fn settle(&mut self, nonce: Nonce) {
        let call = self.calls.get_mut(&nonce).expect("a call");
        if call.cancelled {
            self.finish(nonce, Outcome::Error);
        } else if !call.written || (call.action.is_repeatable() && call.resends < MAX_RESENDS) {
            call.resends += u8::from(call.written);
            (call.place, call.written) = (None, false);
        } else {
            self.finish(nonce, Outcome::Error);
        }
    }

    /// A line for the server of a link is due, unless it no longer reads.
    pub(super) fn expect_on(&mut self, link: LinkNumber, expect: impl FnOnce(&mut LinkModel)) {
        if let Some(link) = self.links.get_mut(&link).filter(|link| !link.write_closed) {
            expect(link);
        }
    }

    /// The client replaces a request.
    pub(super) fn replace(&mut self, nonce: Nonce) {
        let call = &self.calls[&nonce];
        let (place, number) = (call.place.filter(|_| !call.cancelled), call.number);
        if let Some(link) = place {
            self.expect_on(link, |link| link.cancellations.push(number));
        }
        self.finish(nonce, Outcome::Error);
    }

    /// A server grants a setting.
    pub(super) fn granted(&mut self, by: LinkNumber, action: Action) {
        let setting = action.setting().expect("a setting");
        if let Some(current) = self.current.filter(|current| *current != by) {
            self.expect_on(current, |link| link.settings.push_back(setting));
        }
        match action {
            Action::Level(level) => self.level = Some(level),
            Action::Subscribe(uri) => _ = self.subscriptions.insert(uri),
            Action::Unsubscribe(uri) => _ = self.subscriptions.remove(uri),
            Action::Act | Action::Read | Action::List | Action::CreateTask | Action::TaskResult(_) => {}
        }
    }

    /// Time passes. Each timer runs at its deadline, as with the timer task.
    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.machine.run_timers(self.now);
            let late = self.calls.iter().filter(|(_, call)| call.deadline <= self.now);
            for nonce in late.map(|(nonce, _)| *nonce).collect::<Vec<_>>() {
                let call = &self.calls[&nonce];
                let (number, link) = (call.number, call.place.filter(|_| !call.cancelled));
                if let Some(link) = link {
                    self.expect_on(link, |link| link.cancellations.push(number));
                }
                self.finish(nonce, Outcome::Error);
            }
            self.tasks.retain(|_, task| task.deadline > self.now);
            self.check_questions(true);
        }
        self.now = until;
    }

    /// The owner has no server.
    pub(super) fn refuse(&mut self) {
        self.machine.refuse(self.now, &refusal());
        for nonce in self.all_on(None) {
            self.finish(nonce, Outcome::Refused);
        }
    }
}

pub(super) fn refusal() -> Refusal {
    std::sync::Arc::new(std::fmt::Error)
}
