//! What the clients of a schedule read, and the checks after each step.

use super::*;
use crate::{
    jsonrpc::{json, object::Object},
    streams::ResponseMode,
};

impl Schedule {
    /// Each timer has its subject, and each call a timer and a client.
    pub(super) fn check(&self) {
        let machine = &self.machine;
        for (_, timer) in machine.timers.all() {
            let exists = match timer {
                Timer::Call(call) | Timer::Gather(call) => machine.calls.get(*call).is_some(),
                Timer::Question(_) => !machine.questions.is_empty(),
                Timer::Round(_) => true,
                Timer::Stream(_) | Timer::Task(_) => false,
            };
            assert!(exists, "{timer:?}");
        }
        for number in machine.calls.numbers() {
            assert!(
                machine.timers.contains(&Timer::Call(number)),
                "call {number} has no timer"
            );
            let call = machine.calls.get(number).expect("a call");
            let parked = call.modern.as_ref().is_some_and(|modern| modern.is_parked());
            let read = self
                .exchanges
                .iter()
                .any(|exchange| exchange.reader.stream == call.stream);
            assert!(parked || call.cancelled || read, "call {number} has no client");
        }
    }

    /// The clients read what is for them.
    pub(super) fn read(&mut self) {
        let context = Context::from_waker(Waker::noop());
        for mut exchange in std::mem::take(&mut self.exchanges) {
            if !exchange.streaming {
                match self.machine.streams.poll_response_mode(exchange.reader, &context) {
                    Poll::Pending => {}
                    Poll::Ready(ResponseMode::Json(lines)) => {
                        assert_eq!(lines.len(), 1, "responses to {}", exchange.id);
                        self.ended(&exchange, &lines[0]);
                        continue;
                    }
                    Poll::Ready(ResponseMode::Sse) => {
                        exchange.streaming = true;
                        self.machine.begin_events(exchange.reader).expect("a stream");
                    }
                    Poll::Ready(ResponseMode::Unserved(why)) => panic!("{why}"),
                }
            }
            let ended = exchange.streaming && self.read_events(&exchange, &context);
            if !ended {
                self.exchanges.push(exchange);
            }
        }
    }

    /// Reads the events of a stream. True if the response was among them.
    fn read_events(&mut self, exchange: &Exchange, context: &Context<'_>) -> bool {
        while let Poll::Ready(event) = self.machine.poll_event(exchange.reader, context) {
            let event = event.expect("a response before the end of the stream");
            if message(std::str::from_utf8(&event.line).expect("text"))
                .method()
                .is_none()
            {
                assert!(event.last, "nothing follows a response");
                self.ended(exchange, &event.line);
                return true;
            }
        }
        false
    }

    fn ended(&mut self, exchange: &Exchange, line: &[u8]) {
        let response: Value = serde_json::from_slice(line).expect("JSON");
        assert_eq!(response["id"], exchange.id);
        if let Some(asked) = response["result"]["inputRequests"].as_object() {
            let keys: Vec<_> = asked.keys().cloned().collect();
            assert!(!keys.is_empty());
            let text = std::str::from_utf8(line).expect("text");
            let result = &text[json::member(text, "result").expect("a result")];
            let asked = &result[json::member(result, "inputRequests").expect("questions")];
            assert!(Object::parse(asked).is_some(), "a key comes twice: {asked}");
            let state = response["result"]["requestState"].as_str().expect("a state").to_owned();
            self.retries.push((exchange.tool, state, keys));
        }
        self.machine.detach_reader(self.now, exchange.reader);
    }
}
