//! The state machine on random schedules, against the little that a reader of the specification would expect.
//!
//! The model knows which request holds which id and stream. What the machine does is checked as it happens: every request gets
//! exactly one answer, at its own stream, byte for byte but for the id, whatever else goes on.

use std::{
    collections::HashMap,
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

/// Ids that are easily taken for each other. The first three are one id in three spellings.
const IDS: [&str; 9] = ["1", "1.0", "10e-1", "\"1\"", "0", "\"\"", "-1", "1.5", "\"a\\u0062\""];

#[derive(Clone, Debug)]
enum Op {
    Request { id: usize, token: Option<u8> },
    Answer { which: usize, error: bool },
    AnswerTwice { which: usize },
    AnswerToNobody { number: u64 },
    HangUp { which: usize },
    Cancel { id: usize },
    Progress { token: u8 },
    Notify,
    Ask { id: u8 },
    Respond { id: u8 },
    Listen,
    HangUpListener { which: usize },
    Pass { seconds: u64 },
}

#[derive(Debug)]
struct Sent {
    number: u64,
    raw: &'static str,
    nonce: usize,
    stream: StreamId,
    hung_up: bool,
}

struct World {
    machine: Legacy,
    now: Instant,
    nonce: usize,
    /// In flight, as far as the client and the server can know.
    flying: Vec<Sent>,
    /// What each stream has brought so far.
    read: HashMap<StreamId, Vec<String>>,
    listeners: Vec<StreamId>,
    /// Lines of the server that must come out once at most.
    once: HashMap<String, usize>,
    /// The requests of the server that it waits for, by id.
    asked: HashMap<u8, usize>,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..IDS.len();
    prop_oneof![
        6 => (id.clone(), prop::option::of(0u8..3)).prop_map(|(id, token)| Op::Request { id, token }),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(which, error)| Op::Answer { which, error }),
        1 => any::<usize>().prop_map(|which| Op::AnswerTwice { which }),
        1 => (1_000_000u64..1_000_010).prop_map(|number| Op::AnswerToNobody { number }),
        2 => any::<usize>().prop_map(|which| Op::HangUp { which }),
        2 => id.prop_map(|id| Op::Cancel { id }),
        2 => (0u8..4).prop_map(|token| Op::Progress { token }),
        2 => Just(Op::Notify),
        2 => (0u8..4).prop_map(|id| Op::Ask { id }),
        2 => (0u8..4).prop_map(|id| Op::Respond { id }),
        1 => Just(Op::Listen),
        1 => any::<usize>().prop_map(|which| Op::HangUpListener { which }),
        1 => (0u64..20).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

fn message(text: &str) -> Envelope {
    Envelope::parse(text.as_bytes()).expect("a message")
}

fn id(raw: &str) -> Id {
    Id::parse(raw).expect("an id")
}

impl World {
    fn new() -> Self {
        let mut config = Config {
            max_in_flight: 5,
            max_asks: 3,
            ..Config::default()
        };
        config.request_timeout = Duration::from_secs(60);
        config.backlog.messages = 4;
        Self {
            machine: Legacy::new(config, Arc::default()),
            now: Instant::now(),
            nonce: 0,
            flying: Vec::new(),
            read: HashMap::new(),
            listeners: Vec::new(),
            once: HashMap::new(),
            asked: HashMap::new(),
        }
    }

    fn nonce(&mut self) -> usize {
        self.nonce += 1;
        self.nonce
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Request { id, token } => self.request(IDS[id], token),
            Op::Answer { which, error } => self.answer(which, error),
            Op::AnswerTwice { which } => {
                if let Some(number) = self.pick(which).map(|sent| sent.number) {
                    self.answer(which, false);
                    self.server(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"twice"}}"#));
                }
            }
            Op::AnswerToNobody { number } => {
                self.server(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"nobody"}}"#));
                self.server(&format!(r#"{{"jsonrpc":"2.0","id":"{number}","result":"nobody"}}"#));
            }
            Op::HangUp { which } => {
                if let Some(sent) = self.pick(which).filter(|sent| !sent.hung_up) {
                    sent.hung_up = true;
                    let stream = sent.stream;
                    self.machine.hang_up(self.now, stream);
                }
            }
            Op::Cancel { id } => {
                let method = "notifications/cancelled";
                let text = format!(
                    r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{}}}}}"#,
                    IDS[id]
                );
                self.machine.notify(self.now, message(&text), method).expect("taken");
            }
            Op::Progress { token } => self.tell(&format!(
                r#""method":"notifications/progress","params":{{"progressToken":{token},"progress":1,"#
            )),
            Op::Notify => self.tell(r#""method":"notifications/message","params":{"#),
            Op::Ask { id } => {
                let nonce = self.nonce();
                let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":{{"once":{nonce}}}}}"#);
                // A second request of the same id is the server's fault; it waits for one answer.
                self.asked.insert(id, 1);
                self.once.insert(line.clone(), 0);
                self.server(&line);
            }
            Op::Respond { id: raw } => {
                let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{}}}}"#);
                self.machine
                    .respond(&message(&text), Some(&id(&raw.to_string())))
                    .expect("taken");
            }
            Op::Listen => {
                let stream = self.machine.listen(self.now);
                self.listeners.extend(stream);
            }
            Op::HangUpListener { which } => {
                if !self.listeners.is_empty() {
                    let stream = self.listeners.swap_remove(which % self.listeners.len());
                    self.machine.hang_up(self.now, stream);
                }
            }
            Op::Pass { seconds } => {
                self.now += Duration::from_secs(seconds);
                self.machine.tick(self.now);
            }
        }
        self.check_outbox();
        self.check_streams();
    }

    fn pick(&mut self, which: usize) -> Option<&mut Sent> {
        let count = self.flying.len();
        if count == 0 {
            None
        } else {
            self.flying.get_mut(which % count)
        }
    }

    fn request(&mut self, raw: &'static str, token: Option<u8>) {
        let nonce = self.nonce();
        let meta = token
            .map(|token| format!(r#""_meta":{{"progressToken":{token}}},"#))
            .unwrap_or_default();
        let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"m","params":{{{meta}"nonce":{nonce}}}}}"#);
        let taken = self.machine.request(self.now, message(&text), id(raw), "m");
        let same = self.flying.iter().any(|sent| id(sent.raw).key() == id(raw).key());
        if same {
            assert_eq!(taken, Err(Refusal::IdInFlight));
            return;
        }
        let Ok(stream) = taken else {
            assert_eq!(taken, Err(Refusal::Busy));
            return;
        };
        let line = self.machine.outbox.take().expect("the request");
        let sent = message(std::str::from_utf8(&line).expect("text"));
        assert_eq!(sent.param("nonce"), Some(nonce.to_string().as_str()));
        let Kind::Request { id, .. } = sent.kind() else {
            panic!("{sent:?} is no request")
        };
        let number = id.number().expect("a number of the bridge's own");
        assert!(
            self.flying.iter().all(|sent| sent.number != number),
            "the number {number} is in use"
        );
        self.flying.push(Sent {
            number,
            raw,
            nonce,
            stream,
            hung_up: false,
        });
    }

    fn answer(&mut self, which: usize, error: bool) {
        let Some(sent) = self.pick(which) else { return };
        let (number, nonce) = (sent.number, sent.nonce);
        let outcome = if error { "error" } else { "result" };
        self.server(&format!(
            r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{number}, "jsonrpc":"2.0"}}"#
        ));
        let at = self
            .flying
            .iter()
            .position(|sent| sent.number == number)
            .expect("picked before");
        let sent = self.flying.remove(at);
        if !sent.hung_up {
            let lines = self.drain(sent.stream);
            let expected = format!(
                r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{}, "jsonrpc":"2.0"}}"#,
                sent.raw
            );
            assert_eq!(lines.last(), Some(&expected));
            self.finish(&sent);
        }
    }

    /// A stream that has brought its answer is over, and the answer is the only one on it.
    fn finish(&mut self, sent: &Sent) {
        let context = Context::from_waker(Waker::noop());
        assert_eq!(self.machine.streams.poll(sent.stream, &context), Poll::Ready(None));
        let answers = self.read[&sent.stream].iter().filter(|line| is_answer(line)).count();
        assert_eq!(answers, 1);
        self.machine.hang_up(self.now, sent.stream);
    }

    fn tell(&mut self, start: &str) {
        let nonce = self.nonce();
        let line = format!(r#"{{"jsonrpc":"2.0",{start}"once":{nonce}}}}}"#);
        self.once.insert(line.clone(), 0);
        self.server(&line);
    }

    fn server(&mut self, line: &str) {
        self.machine.take(self.now, message(line));
    }

    fn drain(&mut self, stream: StreamId) -> Vec<String> {
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = self.machine.streams.poll(stream, &context) {
            let line = String::from_utf8(event.line.into()).expect("text");
            assert_eq!(event.last, is_answer(&line));
            if let Some(count) = self.once.get_mut(&line) {
                *count += 1;
                assert_eq!(*count, 1, "{line} came twice");
            }
            self.read.entry(stream).or_default().push(line);
        }
        self.read.get(&stream).cloned().unwrap_or_default()
    }

    /// Whatever else goes to the server is an answer to a request of its own, at most one each, or a cancellation
    /// of a request that it knows.
    fn check_outbox(&mut self) {
        while let Some(lines) = self.machine.outbox.take() {
            for line in std::str::from_utf8(&lines).expect("text").lines() {
                let sent = message(line);
                match sent.kind() {
                    Kind::Response { id: Some(id), .. } => {
                        let asked = self
                            .asked
                            .get_mut(&id.raw().parse().expect("an id of ours"))
                            .expect("asked");
                        assert_eq!(std::mem::take(asked), 1, "{line} is a second answer");
                    }
                    Kind::Notification { method } => {
                        assert_eq!(&**method, "notifications/cancelled");
                        let number: u64 = sent.param("requestId").expect("an id").parse().expect("a number");
                        assert!(
                            self.flying.iter().any(|sent| sent.number == number),
                            "{line} cancels nothing"
                        );
                    }
                    Kind::Request { .. } | Kind::Response { id: None, .. } => {
                        panic!("{line} was not expected")
                    }
                }
            }
        }
    }

    /// Streams of requests in flight bring no answer but an error of the bridge, with the right id; listeners bring none.
    fn check_streams(&mut self) {
        for at in (0..self.flying.len()).rev() {
            let Sent {
                stream,
                raw,
                hung_up,
                number,
                ..
            } = self.flying[at];
            if hung_up {
                // Its fate cannot be seen; the machine forgets it by its deadline.
                if !self.machine.table.has(number) {
                    self.flying.remove(at);
                }
                continue;
            }
            if let Some(answer) = self.drain(stream).last().filter(|line| is_answer(line)) {
                assert!(
                    answer.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"code":-320"#)),
                    "{answer}"
                );
                let sent = self.flying.remove(at);
                self.finish(&sent);
            }
        }
        for listener in self.listeners.clone() {
            assert!(!self.drain(listener).iter().any(|line| is_answer(line)));
        }
    }

    /// The bookkeeping holds together.
    fn check_books(&self) {
        let entries = self.machine.table.len() + self.machine.asks.len();
        assert_eq!(self.machine.due.len(), entries, "every open request has one deadline");
        assert_eq!(self.machine.table.len(), self.flying.len());
        assert!(entries <= 5 + 3);
    }
}

fn is_answer(line: &str) -> bool {
    matches!(message(line).kind(), Kind::Response { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_gets_its_own_answer_once(ops in prop::collection::vec(op(), 1..60)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
            world.check_books();
        }
        // The end: whoever still waits gets an error, and nothing is left.
        world.machine.end();
        world.check_streams();
        prop_assert!(world.flying.iter().all(|sent| sent.hung_up));
        let flying = std::mem::take(&mut world.flying);
        let listeners = std::mem::take(&mut world.listeners);
        for stream in flying.iter().map(|sent| sent.stream).chain(listeners) {
            world.machine.hang_up(world.now, stream);
        }
        world.check_books();
    }
}

fn machine() -> (Legacy, Instant) {
    (Legacy::new(Config::default(), Arc::default()), Instant::now())
}

fn line(machine: &mut Legacy) -> String {
    String::from_utf8(machine.outbox.take().expect("a line").into())
        .expect("text")
        .trim_end()
        .to_owned()
}

fn event(machine: &mut Legacy, stream: StreamId) -> String {
    let polled = machine.streams.poll(stream, &Context::from_waker(Waker::noop()));
    let Poll::Ready(Some(event)) = polled else {
        panic!("{polled:?} is no event")
    };
    String::from_utf8(event.line.into()).expect("text")
}

#[test]
fn a_request_of_the_server_moves_on_when_its_stream_goes_unread() {
    let (mut machine, now) = machine();
    let first = machine.listen(now).expect("room");
    let ask = r#"{"jsonrpc":"2.0","id":"s1","method":"roots/list"}"#;
    machine.take(now, message(ask));
    machine.hang_up(now, first);
    let second = machine.listen(now).expect("room");
    assert_eq!(event(&mut machine, second), ask);
    machine.hang_up(now, second);
    // It has been read, so it is not put on a third stream, and it has the time of a request that was delivered.
    let third = machine.listen(now).expect("room");
    assert!(
        machine
            .streams
            .poll(third, &Context::from_waker(Waker::noop()))
            .is_pending()
    );
    machine.tick(now + Duration::from_secs(599));
    assert!(machine.outbox.is_empty());
    machine.tick(now + Duration::from_secs(600));
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":"s1","error":{"code":-32001,"#));
    assert_eq!(machine.next_due(), None);
}

#[test]
fn a_request_that_the_server_takes_back_unread_is_never_seen() {
    let (mut machine, now) = machine();
    machine.take(now, message(r#"{"jsonrpc":"2.0","id":5,"method":"ping"}"#));
    machine.take(
        now,
        message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#),
    );
    let stream = machine.listen(now).expect("room");
    assert!(
        machine
            .streams
            .poll(stream, &Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(machine.next_due(), None);
}

#[test]
fn too_many_requests_of_the_server_are_answered_with_errors() {
    let (mut machine, now) = machine();
    for id in 0..=256 {
        machine.take(
            now,
            message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)),
        );
    }
    assert!(line(&mut machine).starts_with(r#"{"jsonrpc":"2.0","id":256,"error""#));
    assert_eq!(machine.faults.total(Fault::AskRefused), 1);
}

#[test]
fn an_answer_of_the_client_keeps_the_id_as_the_server_wrote_it() {
    let (mut machine, now) = machine();
    machine.take(now, message(r#"{"jsonrpc":"2.0","id":7.0,"method":"ping"}"#));
    machine
        .respond(&message(r#"{"jsonrpc":"2.0","id":7,"result":{}}"#), Some(&id("7")))
        .expect("taken");
    assert_eq!(line(&mut machine), r#"{"jsonrpc":"2.0","id":7.0,"result":{}}"#);
}

#[test]
fn initialize_is_not_cancelled_by_its_client() {
    let (mut machine, now) = machine();
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
    machine
        .request(now, message(initialize), id("0"), "initialize")
        .expect("taken");
    line(&mut machine);
    let method = "notifications/cancelled";
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":0}}"#;
    machine.notify(now, message(cancel), method).expect("taken");
    assert!(machine.outbox.is_empty());
    // Nor by its timeout, after which it may be tried again.
    machine.tick(now + Duration::from_secs(600));
    assert!(machine.outbox.is_empty());
    assert!(machine.request(now, message(initialize), id("0"), "initialize").is_ok());
}

#[test]
fn progress_for_a_client_that_left_goes_where_it_may_be_read() {
    let (mut machine, now) = machine();
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}"#;
    let stream = machine.request(now, message(text), id("1"), "m").expect("taken");
    machine.hang_up(now, stream);
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t"}}"#;
    machine.take(now, message(progress));
    let listener = machine.listen(now).expect("room");
    assert_eq!(event(&mut machine, listener), progress);
}
