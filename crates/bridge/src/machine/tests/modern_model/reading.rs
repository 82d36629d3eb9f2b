//! The clients of the model: what they read.

use serde_json::{Value, json};

use super::*;
use crate::streams::{ResponseMode, StreamEvent};

impl Simulation {
    pub(super) fn read_all(&mut self) {
        for at in 0..self.exchanges.len() {
            if self.exchanges[at].attached && self.read(at) {
                self.exchanges[at].outcome = Outcome::Read;
                self.leave(at);
            }
        }
    }

    /// Reads what is there. True if the exchange is over.
    fn read(&mut self, at: usize) -> bool {
        let context = Context::from_waker(Waker::noop());
        let exchange = &self.exchanges[at];
        let reader = exchange.reader;
        if !exchange.is_streaming {
            match self.machine.streams.poll_response_mode(reader, &context) {
                Poll::Pending => {
                    self.check_pending(at);
                    return false;
                }
                Poll::Ready(ResponseMode::Json(lines)) => {
                    assert_eq!((exchange.due.len(), lines.len()), (0, 1), "{exchange:?}");
                    self.read_outcome(at, std::str::from_utf8(&lines[0]).expect("text"));
                    return true;
                }
                Poll::Ready(ResponseMode::Unserved(_)) => {
                    assert_eq!(exchange.outcome, Outcome::Refused);
                    return true;
                }
                Poll::Ready(ResponseMode::Sse) => self.begin_events(at),
            }
        }
        loop {
            match self.machine.poll_event(reader, &context) {
                Poll::Pending => {
                    self.check_pending(at);
                    return false;
                }
                Poll::Ready(None) => panic!("{:?} ends without an outcome", self.exchanges[at]),
                Poll::Ready(Some(StreamEvent { id, line, last })) => {
                    assert!(id.is_none(), "the stream cannot be resumed");
                    let line = std::str::from_utf8(&line).expect("text");
                    let Some(due) = self.exchanges[at].due.pop_front() else {
                        self.read_outcome(at, line);
                        assert!(last);
                        return true;
                    };
                    assert!(due.iter().all(|part| line.contains(part)), "{line} without {due:?}");
                    assert!(!last);
                }
            }
        }
    }

    fn check_pending(&self, at: usize) {
        let exchange = &self.exchanges[at];
        let nothing = exchange.due.is_empty() && exchange.outcome == Outcome::Open;
        assert!(nothing, "nothing has come on {exchange:?}");
    }

    pub(super) fn begin_events(&mut self, at: usize) {
        let exchange = &mut self.exchanges[at];
        // The owner may still answer a request that waits.
        if !exchange.is_streaming && !self.machine.is_waiting(exchange.reader.stream) {
            exchange.is_streaming = true;
            let (_, prime) = self.machine.begin_events(exchange.reader).expect("the reader");
            assert!(!prime);
        }
    }

    pub(super) fn begin_some_events(&mut self) {
        let attached = (0..self.exchanges.len()).filter(|at| self.exchanges[*at].attached);
        if let Some(at) = self.pick(&attached.collect::<Vec<_>>()) {
            self.begin_events(at);
        }
    }

    /// The response to a request is the expected one.
    fn read_outcome(&mut self, at: usize, line: &str) {
        let exchange = &self.exchanges[at];
        let (raw, expected) = (exchange.raw, exchange.outcome.clone());
        let is_internal = exchange.wanted.is_internal();
        let (is_result, is_error) = (
            line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{"#)),
            line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"#)),
        );
        let has = |part: &str| line.contains(part);
        let complete = has(r#""resultType":"complete""#) || is_internal;
        let matches = match &expected {
            Outcome::Open | Outcome::Read => false,
            Outcome::Result(nonce) => is_result && complete && has(&format!(r#""x":"n{nonce}""#)),
            Outcome::ServerError(nonce) => is_error && has(&format!(r#""code":-7,"message":"n{nonce}""#)),
            Outcome::Error => is_error && (has(r#""code":-32603"#) || is_internal),
            Outcome::Invalid => is_error && has("not an object"),
            Outcome::Refused => is_error && (has(r#""code":-32603"#) || is_internal),
            Outcome::MissingCapability => is_error && has(r#""code":-32021"#),
            Outcome::Task(task) => {
                is_result && has(r#""resultType":"task""#) && has(&format!(r#""taskId":"tag-t{task}""#))
            }
            Outcome::Asks { .. } | Outcome::Urls { .. } => is_result && has(r#""resultType":"input_required""#),
            Outcome::Ended => is_result && has(&format!(r#""io.modelcontextprotocol/subscriptionId":{raw}"#)),
        };
        assert!(matches, "{line} is not {expected:?} for {raw}");
        if matches!(expected, Outcome::Asks { .. } | Outcome::Urls { .. }) {
            self.read_questions(at, &expected, line);
        }
    }

    /// A client reads a request for input.
    fn read_questions(&mut self, at: usize, expected: &Outcome, line: &str) {
        let read: Value = serde_json::from_str(line).expect("JSON");
        let requests = read["result"]["inputRequests"].as_object().expect("an object");
        let state = read["result"]["requestState"].as_str().expect("a state");
        let mut asked = Asked {
            wanted: self.exchanges[at].wanted,
            state: state.to_owned(),
            call: None,
            questions: BTreeMap::new(),
            instance: self.instance,
            expires: self.now,
            sent: None,
        };
        if let Outcome::Asks {
            round,
            until,
            questions,
        } = expected
        {
            assert!(
                questions.keys().eq(requests.keys()),
                "{line} has other keys than {questions:?}"
            );
            for (key, question) in questions {
                let request = &requests[key];
                assert_eq!(request["method"], self.questions[question].method);
                assert_eq!(request["params"], json!({ "message": format!("n{question}") }));
            }
            let call = self.exchanges[at].call.expect("a call");
            asked.call = Some((call, round.0, round.1));
            asked.expires = *until;
            asked.questions.clone_from(questions);
        } else if let Outcome::Urls { pages, nonce, until } = expected {
            assert_eq!(requests.len(), *pages);
            let page = json!({ "mode": "url", "url": "x:y", "message": format!("n{nonce}") });
            assert!(requests.values().all(|request| request["params"] == page), "{line}");
            asked.expires = *until;
        }
        self.asked.push(asked);
    }
}
