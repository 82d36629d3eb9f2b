//! The clients of the model: what they read.

use super::*;
use crate::streams::{ResponseMode, StreamEvent};

impl Simulation {
    pub(super) fn read_all(&mut self) {
        for at in (0..self.connections.len()).rev() {
            if self.read(at) {
                let connection = self.connections.swap_remove(at);
                let exchange = &self.exchanges[connection.exchange];
                let read = |outcome: &Outcome| *outcome == Outcome::Read;
                assert!(exchange.requests.values().all(read), "no outcome on {exchange:?}");
                if connection.last.as_ref().is_some_and(|last| last.is_final) {
                    let again = self.machine.resume(self.now, connection.last.as_ref().expect("an id"));
                    assert_eq!(again, Err(RejectReason::StreamComplete));
                }
                self.detach(connection.reader);
            }
        }
    }

    /// Reads all pending messages. True if the exchange is over.
    fn read(&mut self, at: usize) -> bool {
        let context = Context::from_waker(Waker::noop());
        let (reader, exchange) = (self.connections[at].reader, self.connections[at].exchange);
        if !self.connections[at].is_streaming {
            match self.machine.streams.poll_response_mode(reader, &context) {
                Poll::Pending => return false,
                Poll::Ready(ResponseMode::Json(lines)) => {
                    for line in lines {
                        self.read_response(exchange, std::str::from_utf8(&line).expect("text"));
                    }
                    return true;
                }
                Poll::Ready(ResponseMode::Unserved(_)) => {
                    let outcomes = self.exchanges[exchange].requests.values_mut();
                    for outcome in outcomes {
                        assert_eq!(std::mem::replace(outcome, Outcome::Read), Outcome::Refused);
                    }
                    return true;
                }
                Poll::Ready(ResponseMode::Sse) => self.begin_events(at),
            }
            if !self.connections[at].is_streaming {
                return false;
            }
        }
        loop {
            match self.machine.poll_event(reader, &context) {
                Poll::Pending => return false,
                Poll::Ready(_) if self.connections[at].broken => return false,
                Poll::Ready(None) => return true,
                Poll::Ready(Some(StreamEvent { id, line, last })) => {
                    let id = id.expect("a stream of this era");
                    self.read_event(at, &id, std::str::from_utf8(&line).expect("text"));
                    if last {
                        assert_eq!(self.machine.poll_event(reader, &context), Poll::Ready(None));
                    }
                }
            }
        }
    }

    /// Reads an event. Behind a position that the client has gone back to, the same events come
    /// again.
    fn read_event(&mut self, at: usize, event: &EventId, line: &str) {
        let connection = &mut self.connections[at];
        let before = connection.last.replace(event.clone());
        let before = before.filter(|before| (before.epoch, before.stream) == (event.epoch, event.stream));
        let position = before.map_or(0, |before| before.position);
        assert!(position < event.position, "positions grow");
        let at = connection.exchange;
        let history = &mut self.exchanges[at].history;
        // At the limit of pending messages, notifications are dropped.
        if self.ample_replay && self.config.drop_counts.get(DropReason::BacklogFull) == 0 {
            let missing = history.range(position + 1..event.position).next();
            assert_eq!(missing, None, "{line} leaves a gap");
        }
        if let Some((_, same)) = history.get(&event.position) {
            assert_eq!(same, line, "another event at a known position");
            return;
        }
        history.insert(event.position, (event.clone(), line.to_owned()));
        let read = message(line);
        let nonce = read
            .param("nonce")
            .map(|nonce| nonce.parse::<Nonce>().expect("a number"));
        match (read.kind(), nonce) {
            (MessageKind::Response { .. }, _) => self.read_response(at, line),
            (MessageKind::Request { id, .. }, Some(nonce)) => {
                let question = self.questions.get_mut(&nonce).expect("a question");
                let (raw, client_id) = (question.raw, question.id.raw());
                assert_eq!(*id, question.id, "{line} has the id of {raw}");
                assert!(line.contains(&format!(r#""progressToken":{client_id}"#)));
                question.read = true;
                let link = question.link;
                self.read_once(at, link, nonce);
            }
            (MessageKind::Notification { .. }, Some(nonce)) => {
                let said = &self.said[&nonce];
                assert_eq!(said.line, line);
                match said.to {
                    Audience::Nobody => panic!("{line} is for nobody"),
                    Audience::Exchange(exchange) => {
                        assert_eq!(exchange, at, "{line} is on the stream of another request");
                        assert!(self.read.insert(nonce), "{line} was read twice");
                    }
                    Audience::Any => {
                        let link = said.link;
                        self.read_once(at, link, nonce);
                    }
                }
            }
            _ => self.read_own(line, &read),
        }
    }

    /// A message of a link is on a stream that may carry it, once.
    fn read_once(&mut self, at: usize, link: LinkNumber, nonce: Nonce) {
        assert!(self.read.insert(nonce), "{nonce} was read twice");
        let exchange = &self.exchanges[at];
        assert!(
            exchange.is_listener || exchange.links.contains(&link),
            "{nonce} of link {link} is on the stream of {exchange:?}"
        );
    }

    /// A notification of the conversation itself.
    fn read_own(&mut self, line: &str, read: &Envelope) {
        if line.contains("notifications/tools/list_changed") {
            self.list_changes.1 += 1;
            assert!(self.list_changes.1 <= self.list_changes.0, "no list has changed");
            return;
        }
        assert!(line.contains("notifications/cancelled"), "{line} was never said");
        let id = read.param_id("requestId").expect("an id");
        let question = self.questions.values_mut().find(|question| question.id == id);
        let question = question.unwrap_or_else(|| panic!("{line} is about no question"));
        assert!(!question.open && !question.answered, "{line} withdraws {question:?}");
        assert!(
            !std::mem::replace(&mut question.withdrawn, true),
            "{line} was read twice"
        );
    }

    /// A response on the stream of an exchange: it is the one that the model expects.
    fn read_response(&mut self, at: usize, line: &str) {
        let response = message(line);
        let MessageKind::Response { id: Some(id), .. } = response.kind() else {
            panic!("{line} is no response")
        };
        let raw = id.raw();
        let exchange = &mut self.exchanges[at];
        let outcome = exchange.requests.get_mut(raw);
        let outcome = outcome.unwrap_or_else(|| panic!("{line} answers no request"));
        let error = line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"code":-32"#));
        match std::mem::replace(outcome, Outcome::Read) {
            Outcome::Response(expected) => assert_eq!(line, expected),
            Outcome::Error | Outcome::Refused => assert!(error, "{line} is not the error of {raw}"),
            Outcome::Lost => assert!(line.contains("is no longer available"), "{line} is not lost"),
            before @ (Outcome::Open | Outcome::Read) => panic!("{line} is too early or too late: {before:?}"),
        }
    }
}
