//! The clients of the model: what they read.

use super::*;

impl Simulation {
    /// Reads everything that clients can read.
    pub(super) fn read_all(&mut self) {
        let context = Context::from_waker(Waker::noop());
        let mut at = 0;
        while at < self.connections.len() {
            let (reader, call) = (self.connections[at].reader, self.connections[at].call);
            if self.connections[at].last.is_none() {
                match self.machine.streams.poll_response_mode(reader, &context) {
                    Poll::Pending => {}
                    Poll::Ready(ResponseMode::Sse) => self.prime(at),
                    Poll::Ready(ResponseMode::Json(lines)) => {
                        for line in lines {
                            self.client_reads(call, &line);
                        }
                        let connection = self.connections.swap_remove(at);
                        self.machine.detach_reader(self.now, connection.reader);
                        continue;
                    }
                    Poll::Ready(ResponseMode::Unserved(_)) => {
                        let call = self.calls.get_mut(&call.expect("an exchange")).expect("a call");
                        call.outcomes += 1;
                        let connection = self.connections.swap_remove(at);
                        self.machine.detach_reader(self.now, connection.reader);
                        continue;
                    }
                }
            }
            if self.connections[at].last.is_some() && self.read_events(at, call) {
                let connection = self.connections.swap_remove(at);
                self.machine.detach_reader(self.now, connection.reader);
                continue;
            }
            at += 1;
        }
    }

    /// Reads the events of a connection. True if its stream has ended.
    fn read_events(&mut self, at: usize, call: Option<usize>) -> bool {
        let context = Context::from_waker(Waker::noop());
        loop {
            match self.machine.poll_event(self.connections[at].reader, &context) {
                Poll::Ready(Some(StreamEvent { id, line, last })) => {
                    self.connections[at].last = Some(id);
                    self.client_reads(call, &line);
                    if last {
                        return true;
                    }
                }
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    /// A client reads a line on the stream of a call, or of a listener.
    fn client_reads(&mut self, call: Option<usize>, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("text");
        let read = message(line);
        let nonce = read
            .param("nonce")
            .map(|nonce| nonce.parse::<usize>().expect("a number"));
        match (read.kind().clone(), nonce) {
            (MessageKind::Response { id, error }, _) => {
                let nonce = call.expect("a response on the stream of a listener");
                let call = self.calls.get_mut(&nonce).expect("a call");
                assert_eq!(id.expect("an id").raw(), call.raw);
                assert!(
                    error || read.outcome() == format!(r#"{{"nonce":{nonce}}}"#),
                    "{line} is not for {nonce}"
                );
                call.outcomes += 1;
                assert_eq!(call.outcomes, 1, "{nonce} has two outcomes");
            }
            (MessageKind::Request { id, .. }, Some(nonce)) => {
                let question = self.questions.get_mut(&nonce).expect("a question");
                question.client_id = Some(id);
                let link = question.link;
                self.check_stream(call, link, nonce);
            }
            (MessageKind::Notification { .. }, Some(nonce)) => {
                let link = self.notifications[&nonce];
                self.check_stream(call, link, nonce);
            }
            // A cancellation of a question.
            (MessageKind::Notification { .. } | MessageKind::Request { .. }, None) => {}
        }
    }

    /// Checks that a message of a link is on a stream that may carry it, once.
    fn check_stream(&mut self, call: Option<usize>, link: LinkNumber, nonce: usize) {
        assert!(self.read.insert(nonce), "{nonce} was read twice");
        if let Some(call) = call.map(|call| &self.calls[&call]) {
            assert!(
                call.placed.contains(&link),
                "{nonce} of link {link} is on the stream of {call:?}"
            );
        }
    }
}
