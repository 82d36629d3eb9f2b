//! The servers of the model: what they receive, answer, ask and write, and how they come and go.

use super::*;

impl Simulation {
    /// Opens the session on the first link.
    pub(super) fn handshake(&mut self) {
        assert!(self.machine.start_link(1));
        self.links.insert(1, HashMap::new());
        self.next_link = 2;
        self.machine.attach(self.now, 1);
        let text = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
        let reader = self.machine.request(self.now, message(text), id("0"), "initialize");
        let reader = reader.expect("room");
        self.machine.take_output(1).expect("the request");
        self.machine.mark_written(1);
        self.machine.receive(
            self.now,
            1,
            message(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25"}}"#),
        );
        let context = Context::from_waker(Waker::noop());
        let mode = self.machine.streams.poll_response_mode(reader, &context);
        assert!(matches!(mode, Poll::Ready(ResponseMode::Json(_))));
        self.machine.detach_reader(self.now, reader);
        let method = "notifications/initialized";
        self.machine
            .notify(self.now, message(&initialized()), method)
            .expect("taken");
        self.pump();
    }

    /// Starts a link, replays the handshake and attaches it. There are at most two links.
    pub(super) fn rotate(&mut self) {
        if self.links.len() > 1 {
            return;
        }
        let link = self.next_link;
        self.next_link += 1;
        assert!(self.machine.start_link(link));
        self.links.insert(link, HashMap::new());
        self.pump();
        if !self.links.contains_key(&link) {
            return;
        }
        assert!(matches!(self.machine.replayed(link), Some(Ok(()))));
        self.machine.attach(self.now, link);
        self.pump();
        let alive = self.links.contains_key(&link);
        if let Some(level) = self.granted_level.filter(|_| alive) {
            assert_eq!(
                self.levels.get(&link),
                Some(&level),
                "a setting is missing on link {link}"
            );
        }
    }

    pub(super) fn crash(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        if let Some(link) = self.pick(&links) {
            if self.rng.bool() {
                self.machine.close_write(self.now, link);
            }
            self.end_link(link);
        }
    }

    pub(super) fn end_link(&mut self, link: LinkNumber) {
        self.links.remove(&link);
        self.machine.end_link(self.now, link);
        self.note_places();
        for question in self.questions.values_mut().filter(|question| question.link == link) {
            question.closed = true;
        }
    }

    pub(super) fn retire_or_detach(&mut self) {
        let Some(current) = self.machine.links.current() else {
            return;
        };
        if self.rng.bool() {
            let busy = self.machine.in_flight(current) > 0;
            assert_eq!(self.machine.retire_if_idle(current), !busy);
        } else {
            self.machine.detach(current);
        }
    }

    /// Lets all servers read their input.
    pub(super) fn pump(&mut self) {
        loop {
            let links: Vec<_> = self.links.keys().copied().collect();
            let mut idle = true;
            for link in links {
                while let Some(lines) = self.machine.take_output(link) {
                    idle = false;
                    // Before the lines are read, a server may crash that has not got them.
                    if self.rng.usize(..20) == 0 {
                        self.end_link(link);
                        break;
                    }
                    self.machine.mark_written(link);
                    let lines = String::from_utf8(lines.into()).expect("text");
                    lines.lines().for_each(|line| self.server_reads(link, line));
                }
            }
            if idle {
                return;
            }
        }
    }

    fn server_reads(&mut self, link: LinkNumber, line: &str) {
        let read = message(line);
        match read.kind().clone() {
            MessageKind::Request { id, method } => self.server_takes(link, &read, &id, &method),
            MessageKind::Response { id, error } => {
                let server_id: usize = id.expect("an id").raw().parse().expect("an id of the model");
                let mut open = self.questions.iter_mut();
                let found = open
                    .find(|(_, question)| question.link == link && question.server_id == server_id && !question.closed);
                let (nonce, question) = found.unwrap_or_else(|| panic!("{line} answers no open question of {link}"));
                question.closed = true;
                assert!(
                    error || read.outcome() == format!(r#"{{"for":{nonce}}}"#),
                    "{line} is for {nonce}"
                );
            }
            MessageKind::Notification { .. } => {}
        }
    }

    fn server_takes(&mut self, link: LinkNumber, read: &Envelope, id: &Id, method: &str) {
        let number = id.number().expect("a number of the conversation");
        if method == "initialize" || method == "logging/setLevel" && read.param("nonce").is_none() {
            if let Some(level) = read.param("level").and_then(crate::jsonrpc::json::string) {
                self.levels.insert(link, level.parse().expect("a level of the model"));
            }
            let result = r#"{"protocolVersion":"2025-11-25"}"#;
            let response = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{result}}}"#);
            self.machine.receive(self.now, link, message(&response));
            return;
        }
        let nonce: usize = read.param("nonce").expect("a nonce").parse().expect("a number");
        assert_eq!(read.progress_token().and_then(|token| token.number()), Some(number));
        let call = self.calls.get_mut(&nonce).expect("a call");
        assert!(call.repeatable || call.runs.is_empty(), "{nonce} runs twice: {call:?}");
        call.runs.push(link);
        self.links.get_mut(&link).expect("a link").insert(number, nonce);
    }

    /// Answers a call that a server has got.
    pub(super) fn answer(&mut self) {
        if let Some((link, number, nonce)) = self.taken() {
            self.links.get_mut(&link).expect("a link").remove(&number);
            let line = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"nonce":{nonce}}}}}"#);
            self.machine.receive(self.now, link, message(&line));
        }
    }

    /// A server answers a call that runs on another one.
    pub(super) fn answer_on_another_link(&mut self) {
        if let Some((link, number, _)) = self.taken() {
            let other = self.links.keys().find(|other| **other != link).copied();
            if let Some(other) = other.filter(|other| !self.links[other].contains_key(&number)) {
                let line = format!(r#"{{"jsonrpc":"2.0","id":{number},"result":{{"nonce":0}}}}"#);
                self.machine.receive(self.now, other, message(&line));
            }
        }
    }

    fn taken(&mut self) -> Option<(LinkNumber, u64, usize)> {
        let calls = self.links.iter().flat_map(|(link, calls)| {
            let calls = calls.iter();
            calls.map(|(number, nonce)| (*link, *number, *nonce))
        });
        let mut calls: Vec<_> = calls.collect();
        calls.sort_unstable();
        self.pick(&calls)
    }

    pub(super) fn ask(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        let Some(link) = self.pick(&links) else { return };
        let (server_id, nonce) = (self.rng.usize(..3), self.nonce());
        let mut open = self.questions.values();
        if open.any(|question| question.link == link && question.server_id == server_id && !question.closed) {
            return;
        }
        self.questions.insert(
            nonce,
            QuestionModel {
                link,
                server_id,
                client_id: None,
                closed: false,
            },
        );
        let line = format!(
            r#"{{"jsonrpc":"2.0","id":{server_id},"method":"elicitation/create","params":{{"nonce":{nonce}}}}}"#
        );
        self.machine.receive(self.now, link, message(&line));
    }

    /// A client answers a question that it has read, perhaps once more or too late.
    pub(super) fn answer_question(&mut self) {
        let questions = self
            .questions
            .iter()
            .filter(|(_, question)| question.client_id.is_some());
        let mut nonces: Vec<_> = questions.map(|(nonce, _)| *nonce).collect();
        nonces.sort_unstable();
        let Some(nonce) = self.pick(&nonces) else { return };
        let Some(asked) = self.questions[&nonce].client_id.clone() else {
            return;
        };
        let line = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{"for":{nonce}}}}}"#, asked.raw());
        self.machine.respond(&message(&line), Some(&asked)).expect("room");
    }

    pub(super) fn notify(&mut self) {
        let links: Vec<_> = self.links.keys().copied().collect();
        if let Some(link) = self.pick(&links) {
            let nonce = self.nonce();
            self.notifications.insert(nonce, link);
            let line = format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"nonce":{nonce}}}}}"#);
            self.machine.receive(self.now, link, message(&line));
        }
    }

    /// The client sets a level, and a server grants it.
    pub(super) fn set_level(&mut self) {
        let Some(current) = self.machine.links.current() else {
            return;
        };
        let level = self.nonce();
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":"level{level}","method":"logging/setLevel","params":{{"level":"{level}"}}}}"#
        );
        let id = id(&format!("\"level{level}\""));
        let Ok(reader) = self.machine.request(self.now, message(&text), id, "logging/setLevel") else {
            return;
        };
        self.pump();
        if self.levels.get(&current) == Some(&level) {
            self.granted_level = Some(level);
        }
        self.machine.detach_reader(self.now, reader);
    }
}

fn initialized() -> String {
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()
}
