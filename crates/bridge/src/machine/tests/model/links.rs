//! The links of the model: how they come and go, and the snapshot.

use super::*;
use crate::{jsonrpc, streams::ResponseMode};

impl Simulation {
    pub(super) fn version(&self) -> &'static str {
        if self.batches { "2025-03-26" } else { "2025-11-25" }
    }

    /// Opens the session on the first link.
    pub(super) fn open_session(&mut self) {
        let version = self.version();
        let text =
            format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}"}}}}"#);
        let reader = self
            .machine
            .request(self.now, message(&text), id("0"), "initialize", true);
        let reader = reader.expect("room");
        self.start_link();
        self.machine.attach(self.now, 1);
        (self.current, self.newest) = (Some(1), 1);
        self.machine.take_output(1).expect("the request");
        self.machine.mark_written(1);
        self.numbers.insert(1, None);
        let answer = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"protocolVersion":"{version}"}}}}"#);
        self.machine.receive(self.now, 1, message(&answer));
        let context = Context::from_waker(Waker::noop());
        let mode = self.machine.streams.poll_response_mode(reader, &context);
        assert!(matches!(mode, Poll::Ready(ResponseMode::Json(_))));
        self.machine.detach_reader(self.now, reader);
        let initialized = std::str::from_utf8(&jsonrpc::initialized()).map(message).expect("text");
        let method = "notifications/initialized";
        self.machine.notify(self.now, initialized, method, true).expect("room");
        self.links.get_mut(&1).expect("the link").ready = true;
    }

    pub(super) fn start_link(&mut self) {
        if self.links.len() >= MAX_LINKS {
            return;
        }
        self.last_link += 1;
        assert!(self.machine.start_link(self.last_link));
        let list = self.rng.usize(..2);
        let link = LinkModel {
            list,
            ..LinkModel::default()
        };
        self.links.insert(self.last_link, link);
    }

    /// Attaches a link whose handshake is done. Nothing happens if a newer one was attached before.
    pub(super) fn attach(&mut self) {
        let ready = self.links.iter().filter(|(_, link)| link.ready);
        let ready: Vec<_> = ready.map(|(number, _)| *number).collect();
        // Mostly a link that was not attached before.
        let fresh: Vec<_> = ready.iter().copied().filter(|link| *link > self.newest).collect();
        let link = self.pick(&fresh).or_else(|| self.pick(&ready));
        if let Some(link) = link {
            self.attach_link(link);
        }
    }

    pub(super) fn attach_link(&mut self, number: LinkNumber) {
        assert!(matches!(self.machine.replayed(number), Some(Ok(()))));
        self.machine.attach(self.now, number);
        if number <= self.newest {
            return;
        }
        self.newest = number;
        self.current = Some(number).filter(|number| !self.links[number].write_closed);
        let level = self.level.map(|level| ClientSetting::LogLevel(level.into()));
        let subscriptions = self
            .subscriptions
            .iter()
            .map(|uri| ClientSetting::Subscribe((*uri).into()));
        let settings: Vec<_> = level.into_iter().chain(subscriptions).collect();
        let probes = usize::from(self.known_list.is_some());
        self.expect_on(number, |link| {
            link.settings.extend(settings);
            link.probes += probes;
        });
        self.place_waiting();
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

    /// The server of a link no longer reads.
    pub(super) fn close_write(&mut self, number: LinkNumber) {
        self.machine.close_write(self.now, number);
        self.current = self.current.filter(|current| *current != number);
        let link = self.links.get_mut(&number).expect("a link");
        link.write_closed = true;
        link.settings.clear();
        link.responses.clear();
        link.cancellations.clear();
        link.notifications.clear();
        link.probes = 0;
        for nonce in self.all_on(Some(number)) {
            let call = self.calls.get_mut(&nonce).expect("a call");
            if call.written {
                continue;
            }
            call.place = None;
            if call.cancelled {
                self.finish(nonce, Outcome::Error);
            }
        }
        self.place_waiting();
    }

    /// A link ends. Clients that can read learn that its questions are given up.
    pub(super) fn end_link(&mut self, number: LinkNumber) {
        let watched = self.once_in(2);
        let read = if watched {
            self.readable_questions(number)
        } else {
            Vec::new()
        };
        self.machine.end_link(self.now, number);
        self.links.remove(&number);
        self.current = self.current.filter(|current| *current != number);
        self.tasks.retain(|_, task| task.link != number);
        for question in self.questions.values_mut().filter(|question| question.link == number) {
            question.open = false;
        }
        for nonce in self.all_on(Some(number)) {
            self.settle(nonce);
        }
        self.place_waiting();
        if watched {
            self.read_all();
        }
        for nonce in read {
            let question = &self.questions[&nonce];
            assert!(question.withdrawn, "no client has learned that {question:?} is over");
        }
    }

    /// The questions of a link that a client has read, if there is a listener that reads
    /// everything at once.
    fn readable_questions(&mut self, link: LinkNumber) -> Vec<Nonce> {
        let listens = |connection: &Connection| self.exchanges[connection.exchange].is_listener && !connection.broken;
        // A question on a stream without a reader is over when its client comes back.
        if self.connections.iter().any(|connection| !listens(connection)) || !self.disconnected.is_empty() {
            return Vec::new();
        }
        self.read_all();
        if self.connections.is_empty() {
            return Vec::new();
        }
        let open = self
            .questions
            .iter()
            .filter(|(_, question)| question.open && question.read);
        let of_link = open.filter(|(_, question)| question.link == link);
        of_link.map(|(nonce, _)| *nonce).collect()
    }

    pub(super) fn crash(&mut self) {
        let Some(link) = self.pick_link() else { return };
        if self.once_in(3) {
            self.close_write(link);
        } else {
            self.end_link(link);
        }
    }

    /// A later instance takes the conversation over, which has seen none of the streams and links.
    pub(super) fn restart(&mut self) {
        let snapshot = self.machine.snapshot().expect("a handshake");
        let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
        self.machine = StateMachine::new(self.config.clone(), "tag", "grant", Some(&snapshot));
        assert!(self.machine.is_blank());
        self.instance += 1;
        (self.current, self.newest, self.want) = (None, 0, None);
        self.links.clear();
        self.calls.clear();
        self.numbers.clear();
        self.readers.clear();
        self.tasks.clear();
        for question in self.questions.values_mut() {
            question.open = false;
        }
        for connection in std::mem::take(&mut self.connections) {
            self.remember(connection);
        }
    }

    /// The calls, questions and tasks of a link.
    pub(super) fn in_flight(&self, link: LinkNumber) -> usize {
        let questions = self
            .questions
            .values()
            .filter(|question| question.open && question.link == link);
        let tasks = self.tasks.values().filter(|task| task.busy && task.link == link);
        let calls = self.calls.values().filter(|call| call.place == Some(link));
        calls.count() + questions.count() + tasks.count()
    }
}
