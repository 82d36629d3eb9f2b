//! The state machine on random schedules, against the little that a reader of the specification would expect.
//!
//! The model knows which requests each exchange has made, what its client has read and where its connection was cut. What the machine
//! does is checked as it happens: each request is answered exactly once or gets exactly one error, on a stream of its own exchange
//! and byte for byte but for the id, however often its client loses the connection and comes back; and nothing comes twice.
//!
//! A schedule follows from its seed. `BRIDGE_MODEL_SCHEDULES` is how many are run, `BRIDGE_MODEL_SEED` the first of their seeds; one that
//! fails says which it was.

use std::{
    collections::{HashMap, HashSet},
    task::{Context, Poll, Waker},
    time::Duration,
};

use fastrand::Rng;

use super::super::*;
use crate::{
    fuzz_tests::env_number,
    jsonrpc::MessageError,
    streams::{Event, EventId, ResponseMode},
};

/// Ids that are easily taken for each other. The first three are one id in three spellings.
const IDS: [&str; 9] = ["1", "1.0", "10e-1", "\"1\"", "0", "\"\"", "-1", "1.5", "\"a\\u0062\""];

/// What a server should not write: no message, or none that means anything.
const GARBAGE: [&str; 8] = [
    "Listening on stdio",
    "{\"jsonrpc\":\"2.0\",",
    "[]",
    "[{\"jsonrpc\":\"2.0\"}]",
    "{\"jsonrpc\":\"1.0\",\"id\":1,\"result\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{}}",
    "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":1,\"message\":\"\"}}",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":2,\"result\":{}}",
];

const REQUEST_TIMEOUT: u64 = 60;
const CANCEL_GRACE: u64 = 5;
const REPLAY_TIME: u64 = 30;
const MAX_IN_FLIGHT: usize = 6;
const MAX_LISTENERS: usize = 2;
const MAX_SERVER_REQUESTS: usize = 3;

/// A request that the server may still answer.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    raw: &'static str,
    nonce: usize,
    exchange: usize,
    deadline: Instant,
}

/// One POST with requests, or one GET, over all connections that its client has made for it.
#[derive(Debug, Default)]
struct Exchange {
    /// The requests without an outcome, and what their answers carry.
    open: HashMap<&'static str, usize>,
    /// What the client has read.
    read: HashSet<String>,
    /// The client is gone for good: it never had an event id.
    lost: bool,
    /// Since when it has had nothing to wait for but its client, if its connection is cut.
    settled: Option<Instant>,
    is_listener: bool,
}

#[derive(Debug)]
struct Connection {
    exchange: usize,
    reader: Reader,
    /// The event that was read last, once the connection is a stream.
    last: Option<EventId>,
    /// What is sent on it does not arrive any more, and nobody knows yet.
    broken: bool,
}

#[derive(Debug)]
struct Cut {
    exchange: usize,
    last: EventId,
    since: Instant,
}

struct World {
    rng: Rng,
    machine: StateMachine,
    now: Instant,
    nonce: usize,
    batches: bool,
    /// Whether so much is kept that nothing is forgotten before its time.
    roomy: bool,
    flying: Vec<Sent>,
    exchanges: Vec<Exchange>,
    connections: Vec<Connection>,
    cuts: Vec<Cut>,
    /// Lines of the server that are no answers, and the exchange that has read them.
    told: HashMap<String, Option<usize>>,
    /// The requests of the server that it waits for, by id.
    asked: HashMap<usize, usize>,
}

/// Says which schedule it was.
struct Seed(u64);

fn message(text: &str) -> Envelope {
    Envelope::parse(text.as_bytes()).expect("a message")
}

fn id(raw: &str) -> Id {
    Id::parse(raw).expect("an id")
}

fn config(roomy: bool) -> Config {
    let mut config = Config {
        max_in_flight: MAX_IN_FLIGHT,
        max_listeners: MAX_LISTENERS,
        max_server_requests: MAX_SERVER_REQUESTS,
        request_timeout: Duration::from_secs(REQUEST_TIMEOUT),
        cancel_grace: Duration::from_secs(CANCEL_GRACE),
        replay_time: Duration::from_secs(REPLAY_TIME),
        ..Config::default()
    };
    config.backlog.messages = 4;
    if !roomy {
        config.replay_buffer.messages = 5;
        config.replay_buffer.bytes = 400;
    }
    config
}

impl Connection {
    fn new(exchange: usize, reader: Reader) -> Self {
        Self {
            exchange,
            reader,
            last: None,
            broken: false,
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (batches, roomy) = (rng.bool(), rng.usize(..4) > 0);
        let mut world = Self {
            rng,
            machine: StateMachine::new(config(roomy)),
            now: Instant::now(),
            nonce: 0,
            batches,
            roomy,
            flying: Vec::new(),
            exchanges: Vec::new(),
            connections: Vec::new(),
            cuts: Vec::new(),
            told: HashMap::new(),
            asked: HashMap::new(),
        };
        if batches {
            world.shake_hands();
        }
        world
    }

    fn shake_hands(&mut self) {
        let text = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
        let taken = self.machine.request(self.now, message(text), id("0"), "initialize");
        let reader = taken.expect("room");
        self.machine.outbox.take().expect("the request");
        self.server(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-03-26"}}"#);
        let context = Context::from_waker(Waker::noop());
        assert!(matches!(
            self.machine.streams.poll_response_mode(reader, &context),
            Poll::Ready(ResponseMode::Json(_))
        ));
        self.machine.detach(self.now, reader);
    }

    fn step(&mut self) {
        match self.rng.usize(..36) {
            0..=6 => self.request(),
            7..=8 => self.batch(),
            9..=13 => {
                self.answer();
            }
            14 => self.answer_twice(),
            15 => {
                let number = 1_000_000 + self.rng.usize(..9);
                self.server(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"nobody"}}"#));
                self.server(&format!(r#"{{"jsonrpc":"2.0","id":"{number}","result":"nobody"}}"#));
            }
            16 => {
                let garbage = self.pick(&GARBAGE);
                self.bytes(garbage);
            }
            17..=18 => self.cut(),
            19..=21 => self.come_back(),
            22 => self.take_over(),
            23 => self.cancel(),
            24..=25 => {
                let token = self.rng.usize(..4);
                self.tell(&format!(
                    r#""method":"notifications/progress","params":{{"progressToken":{token},"progress":1,"#
                ));
            }
            26 => self.tell(r#""method":"notifications/message","params":{"#),
            27..=28 => self.ask(),
            29 => {
                let raw = self.rng.usize(..4).to_string();
                let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{}}}}"#);
                self.machine.respond(&message(&text), Some(&id(&raw))).expect("taken");
            }
            30 => self.listen(),
            31 => {
                // The client has no more patience for one whole answer.
                let count = self.connections.len();
                if count > 0 {
                    let at = self.rng.usize(..count);
                    self.prime(at);
                }
            }
            32..=33 => self.break_one(),
            _ => {
                let seconds = self.pick(&[1, 4, 9, 25]);
                self.pass(seconds);
            }
        }
        self.check_outbox();
        if !self.once_in(3) {
            self.read_all();
        }
        self.check_books();
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.rng.usize(..count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        *self.rng.choice(from).expect("a choice")
    }

    fn nonce(&mut self) -> usize {
        self.nonce += 1;
        self.nonce
    }

    fn text(&mut self, raw: &str) -> (String, usize) {
        let nonce = self.nonce();
        let meta = match self.rng.usize(..4) {
            3 => String::new(),
            token => format!(r#""_meta":{{"progressToken":{token}}},"#),
        };
        let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"method":"m","params":{{{meta}"nonce":{nonce}}}}}"#);
        (text, nonce)
    }

    fn is_flying(&self, raw: &str) -> bool {
        self.flying.iter().any(|sent| id(sent.raw).key() == id(raw).key())
    }

    fn has_room(&self, requests: usize) -> bool {
        self.flying.len() + requests <= MAX_IN_FLIGHT && self.attached() < MAX_IN_FLIGHT + MAX_LISTENERS
    }

    fn attached(&self) -> usize {
        self.machine.streams.count_attached()
    }

    fn request(&mut self) {
        let raw = self.pick(&IDS);
        let (text, nonce) = self.text(raw);
        let (flying, room) = (self.is_flying(raw), self.has_room(1));
        let taken = self.machine.request(self.now, message(&text), id(raw), "m");
        if flying {
            assert_eq!(taken, Err(RejectReason::IdInFlight));
        } else if !room {
            assert_eq!(taken, Err(RejectReason::TooManyRequests));
        } else {
            self.sent(taken.expect("room"), &[(raw, nonce)]);
        }
    }

    fn batch(&mut self) {
        let mut made = Vec::new();
        let mut texts = Vec::new();
        for _ in 0..1 + self.rng.usize(..3) {
            let raw = self.pick(&IDS);
            let (text, nonce) = self.text(raw);
            texts.push(text);
            made.push((raw, nonce));
        }
        let messages = split_batch(format!("[{}]", texts.join(",\n")).as_bytes()).expect("messages");
        let keys: HashSet<_> = made.iter().map(|(raw, _)| id(raw).key().clone()).collect();
        let conflict = keys.len() < made.len() || made.iter().any(|(raw, _)| self.is_flying(raw));
        let room = self.has_room(made.len());
        let taken = self.machine.batch(self.now, messages);
        if !self.batches {
            assert_eq!(taken, Err(RejectReason::InvalidMessage(MessageError::Batch)));
        } else if conflict {
            assert_eq!(taken, Err(RejectReason::IdInFlight));
        } else if !room {
            assert_eq!(taken, Err(RejectReason::TooManyRequests));
        } else {
            self.sent(taken.expect("room").expect("a stream"), &made);
        }
    }

    /// Requests were taken: the server has them, under numbers that mean nothing else.
    fn sent(&mut self, reader: Reader, made: &[(&'static str, usize)]) {
        let exchange = self.exchanges.len();
        let lines = self.machine.outbox.take().expect("the requests");
        let lines: Vec<_> = std::str::from_utf8(&lines).expect("text").lines().collect();
        assert_eq!(lines.len(), made.len());
        for (line, (raw, nonce)) in lines.into_iter().zip(made) {
            let sent = message(line);
            assert_eq!(sent.param("nonce"), Some(nonce.to_string().as_str()));
            let MessageKind::Request { id, .. } = sent.kind() else {
                panic!("{line} is no request")
            };
            let number = id.number().expect("a number of the bridge's own");
            assert!(self.flying.iter().all(|sent| sent.number != number));
            self.flying.push(Sent {
                number,
                raw,
                nonce: *nonce,
                exchange,
                deadline: self.now + Duration::from_secs(REQUEST_TIMEOUT),
            });
        }
        self.exchanges.push(Exchange {
            open: made.iter().copied().collect(),
            ..Exchange::default()
        });
        self.connections.push(Connection::new(exchange, reader));
    }

    fn answer(&mut self) -> Option<u64> {
        if self.flying.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.flying.len());
        let sent = self.flying.remove(at);
        let (number, nonce) = (sent.number, sent.nonce);
        let outcome = self.pick(&["result", "error"]);
        let line = format!(r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{number}, "jsonrpc":"2.0"}}"#);
        if self.batches && self.once_in(3) {
            self.bytes(&format!("[{line}]"));
        } else {
            self.server(&line);
        }
        self.settle(sent.exchange);
        Some(number)
    }

    fn answer_twice(&mut self) {
        if let Some(number) = self.answer() {
            self.server(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"twice"}}"#));
        }
    }

    /// If the exchange waits for nothing more, its time runs from now on.
    fn settle(&mut self, exchange: usize) {
        if self.flying.iter().all(|sent| sent.exchange != exchange) {
            self.exchanges[exchange].settled = Some(self.now);
        }
    }

    fn server(&mut self, line: &str) {
        self.machine.receive(self.now, message(line));
    }

    /// A line of the server as the driver takes it.
    fn bytes(&mut self, line: &str) {
        match Envelope::parse(line.as_bytes()) {
            Ok(message) => self.machine.receive(self.now, message),
            Err(_) => {
                if let Ok(messages) = split_batch(line.as_bytes()) {
                    self.machine.receive_batch(self.now, messages);
                }
            }
        }
    }

    fn listen(&mut self) {
        let room = self.has_room(0);
        match self.machine.listen(self.now) {
            Ok(reader) => {
                assert!(room);
                let exchange = self.exchanges.len();
                self.exchanges.push(Exchange {
                    is_listener: true,
                    ..Exchange::default()
                });
                self.connections.push(Connection::new(exchange, reader));
                self.prime(self.connections.len() - 1);
            }
            Err(refusal) => assert!(!room && refusal == RejectReason::TooManyRequests),
        }
    }

    /// The connection becomes a stream.
    fn prime(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.last.is_none() {
            connection.last = self.machine.streams.prime(connection.reader);
        }
    }

    /// A connection does not carry anything any more, which nobody notices yet.
    fn break_one(&mut self) {
        let count = self.connections.len();
        if count > 0 {
            let at = self.rng.usize(..count);
            let connection = &mut self.connections[at];
            connection.broken = connection.last.is_some();
        }
    }

    /// A connection is lost.
    fn cut(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.cut_one(at);
        }
    }

    fn cut_one(&mut self, at: usize) {
        let connection = self.connections.swap_remove(at);
        self.machine.detach(self.now, connection.reader);
        match connection.last {
            Some(last) => self.cuts.push(Cut {
                exchange: connection.exchange,
                last,
                since: self.now,
            }),
            None => self.exchanges[connection.exchange].lost = true,
        }
    }

    fn come_back(&mut self) {
        if self.cuts.is_empty() || !self.has_room(0) {
            return;
        }
        let at = self.rng.usize(..self.cuts.len());
        let cut = self.cuts.swap_remove(at);
        self.resume(&cut);
    }

    fn resume(&mut self, cut: &Cut) {
        let reader = self.machine.resume(self.now, &cut.last).expect("room");
        let exchange = &mut self.exchanges[cut.exchange];
        let since = exchange.settled.map(|settled| settled.max(cut.since));
        let expired = since.is_some_and(|since| self.now >= since + Duration::from_secs(REPLAY_TIME));
        let same = reader.stream == cut.last.stream;
        if !exchange.is_listener && self.roomy {
            assert_eq!(same, !expired, "kept for its time and no longer");
        }
        let mut connection = Connection::new(cut.exchange, reader);
        if exchange.is_listener && !same {
            // It listens anew, so it is another stream.
            connection.exchange = self.exchanges.len();
            self.exchanges.push(Exchange {
                is_listener: true,
                ..Exchange::default()
            });
        }
        self.connections.push(connection);
        self.prime(self.connections.len() - 1);
    }

    /// A client comes back though the bridge still sees its old connection.
    fn take_over(&mut self) {
        let streams: Vec<usize> = (0..self.connections.len())
            .filter(|at| self.connections[*at].last.is_some())
            .collect();
        if streams.is_empty() || !self.has_room(0) {
            return;
        }
        let at = self.pick(&streams);
        let old = self.connections.swap_remove(at);
        let Some(last) = old.last else { return };
        let cut = Cut {
            exchange: old.exchange,
            last,
            since: self.now,
        };
        // What a stream has given away already is asked for again, and the old reader gets nothing more.
        let reader = self.machine.resume(self.now, &cut.last).expect("room");
        let context = Context::from_waker(Waker::noop());
        if reader.stream == old.reader.stream {
            assert_eq!(self.machine.poll_event(old.reader, &context), Poll::Ready(None));
        }
        self.machine.detach(self.now, old.reader);
        let mut exchange = cut.exchange;
        if self.exchanges[exchange].is_listener && reader.stream != old.reader.stream {
            exchange = self.exchanges.len();
            self.exchanges.push(Exchange {
                is_listener: true,
                ..Exchange::default()
            });
        }
        self.connections.push(Connection::new(exchange, reader));
        self.prime(self.connections.len() - 1);
    }

    fn cancel(&mut self) {
        let raw = self.pick(&IDS);
        let method = "notifications/cancelled";
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{raw}}}}}"#);
        self.machine.notify(self.now, message(&text), method).expect("taken");
        let grace = self.now + Duration::from_secs(CANCEL_GRACE);
        for sent in &mut self.flying {
            if id(sent.raw).key() == id(raw).key() {
                sent.deadline = sent.deadline.min(grace);
            }
        }
    }

    fn tell(&mut self, start: &str) {
        let nonce = self.nonce();
        let line = format!(r#"{{"jsonrpc":"2.0",{start}"once":{nonce}}}}}"#);
        self.told.insert(line.clone(), None);
        self.server(&line);
    }

    fn ask(&mut self) {
        let (id, nonce) = (self.rng.usize(..4), self.nonce());
        let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":{{"once":{nonce}}}}}"#);
        // A second request of the same id is the server's fault; it waits for one answer.
        self.asked.insert(id, 1);
        self.told.insert(line.clone(), None);
        self.server(&line);
    }

    fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        // As the driver does: whatever is due is done when it is.
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.machine.run_timers(self.now);
            let given_up: Vec<_> = self.flying.extract_if(.., |sent| sent.deadline <= self.now).collect();
            for sent in given_up {
                self.settle(sent.exchange);
            }
        }
        self.now = until;
    }

    fn read_all(&mut self) {
        for at in (0..self.connections.len()).rev() {
            if self.read(at) {
                let connection = self.connections.swap_remove(at);
                let exchange = &self.exchanges[connection.exchange];
                assert!(
                    exchange.open.is_empty(),
                    "the stream has ended without an outcome for {:?}",
                    exchange.open
                );
                self.machine.detach(self.now, connection.reader);
            }
        }
    }

    /// Reads what there is. Whether the exchange is over.
    fn read(&mut self, at: usize) -> bool {
        let context = Context::from_waker(Waker::noop());
        let (reader, exchange) = (self.connections[at].reader, self.connections[at].exchange);
        if self.connections[at].last.is_none() {
            match self.machine.streams.poll_response_mode(reader, &context) {
                Poll::Pending => return false,
                Poll::Ready(ResponseMode::Json(lines)) => {
                    lines.iter().for_each(|line| self.has_read(exchange, line));
                    return true;
                }
                Poll::Ready(ResponseMode::Sse) => self.prime(at),
            }
        }
        loop {
            match self.machine.poll_event(reader, &context) {
                Poll::Pending => return false,
                Poll::Ready(_) if self.connections[at].broken => return false,
                Poll::Ready(None) => return true,
                Poll::Ready(Some(Event { id, line, last })) => {
                    self.has_read(exchange, &line);
                    let before = self.connections[at].last.replace(id.clone());
                    assert!(
                        before.is_some_and(|before| before.position < id.position),
                        "places grow"
                    );
                    if last {
                        assert_eq!(self.machine.poll_event(reader, &context), Poll::Ready(None));
                    }
                }
            }
        }
    }

    /// A client has read a line: it is meant for it and has not been read before, by it or another.
    fn has_read(&mut self, at: usize, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("text").to_owned();
        let exchange = &mut self.exchanges[at];
        if let Some(reader) = self.told.get_mut(&line) {
            assert_eq!(*reader.get_or_insert(at), at, "{line} is on two streams");
            assert!(exchange.read.insert(line.clone()), "{line} was read twice");
            return;
        }
        let answer = message(&line);
        let MessageKind::Response {
            id: Some(answered),
            error,
        } = answer.kind()
        else {
            panic!("{line} was never said")
        };
        let lost = line.contains("is no longer available");
        let Some(nonce) = exchange.open.remove(answered.raw()) else {
            // A client that had some answers of a batch is told that all are lost.
            assert!(lost, "{line} answers nothing");
            return;
        };
        let raw = answered.raw();
        let outcome = if *error { "error" } else { "result" };
        let expected = format!(r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{raw}, "jsonrpc":"2.0"}}"#);
        let given_up = line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"code":-320"#));
        assert!(line == expected || given_up, "{line} is not the answer to {raw}");
    }

    /// Whatever else goes to the server is an answer to a request of its own, at most one each, or a cancellation
    /// of a request that it knows.
    fn check_outbox(&mut self) {
        while let Some(lines) = self.machine.outbox.take() {
            for line in std::str::from_utf8(&lines).expect("text").lines() {
                let sent = message(line);
                match sent.kind() {
                    MessageKind::Response { id: Some(id), .. } => {
                        let asked = self.asked.get_mut(&id.raw().parse().expect("an id of ours"));
                        assert_eq!(std::mem::take(asked.expect("asked")), 1, "{line} is a second answer");
                    }
                    MessageKind::Notification { method } => {
                        assert_eq!(&**method, "notifications/cancelled");
                        let number: u64 = sent.param("requestId").expect("an id").parse().expect("a number");
                        assert!(number <= self.nonce as u64 + 1, "{line} cancels nothing");
                    }
                    MessageKind::Request { .. } | MessageKind::Response { id: None, .. } => {
                        panic!("{line} was not expected")
                    }
                }
            }
        }
    }

    /// The bookkeeping holds together, and within the limits.
    fn check_books(&self) {
        let machine = &self.machine;
        let retained = machine.timers.all().filter_map(|timer| match timer {
            Timer::Stream(stream) => Some(*stream),
            Timer::Request(_) | Timer::ServerRequest(_) => None,
        });
        let retained: Vec<_> = retained.collect();
        let entries = machine.in_flight.len() + machine.server_requests.len() + retained.len();
        assert_eq!(machine.timers.all().count(), entries, "each open entry has one timer");
        assert_eq!(machine.in_flight.len(), self.flying.len());
        assert!(machine.server_requests.len() <= MAX_SERVER_REQUESTS);
        assert!(retained.iter().all(|stream| machine.streams.is_retained(*stream)));
        assert_eq!(retained.len(), machine.streams.count_retained());
        let (messages, bytes) = machine.streams.replay_usage();
        let limits = config(self.roomy).replay_buffer;
        assert!(messages <= limits.messages && (messages <= 1 || bytes <= limits.bytes));
        assert!(machine.streams.count() <= self.flying.len() + self.attached() + messages);
    }

    /// The server ends, and everybody comes back: nobody is left without an outcome, and nothing is left over.
    fn end(mut self) {
        while let Some(at) = self.connections.iter().position(|connection| connection.broken) {
            self.cut_one(at);
        }
        self.read_all();
        if self.once_in(2) {
            self.machine.end(self.now);
            self.flying.clear();
            for exchange in &mut self.exchanges {
                exchange.settled.get_or_insert(self.now);
            }
        } else {
            while self.answer().is_some() {}
        }
        self.read_all();
        // Listeners go on until their server ends; here they make room.
        for connection in std::mem::take(&mut self.connections) {
            assert!(self.exchanges[connection.exchange].open.is_empty());
            self.machine.detach(self.now, connection.reader);
        }
        let cuts = std::mem::take(&mut self.cuts);
        if self.once_in(4) {
            // The bridge to the next server has seen none of these streams.
            self.machine = StateMachine::new(config(self.roomy));
            self.roomy = false;
        }
        for cut in &cuts {
            if !self.exchanges[cut.exchange].is_listener {
                self.resume(cut);
                self.read_all();
            }
        }
        for exchange in &self.exchanges {
            assert!(
                exchange.lost || exchange.open.is_empty(),
                "no outcome for {:?}",
                exchange.open
            );
        }
        for connection in std::mem::take(&mut self.connections) {
            self.machine.detach(self.now, connection.reader);
        }
        self.machine.run_timers(self.now + Duration::from_secs(10_000));
        self.machine.run_timers(self.now + Duration::from_secs(20_000));
        assert_eq!(self.machine.next_deadline(), None);
        assert_eq!(self.machine.streams.count_attached(), 0);
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of BRIDGE_MODEL_SEED={} has failed", self.0);
        }
    }
}

#[test]
fn each_request_has_one_outcome_whatever_happens() {
    let first = env_number("BRIDGE_MODEL_SEED", 0);
    for seed in first..first + env_number("BRIDGE_MODEL_SCHEDULES", 10_000) {
        let named = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..20 + world.rng.usize(..80) {
            world.step();
        }
        world.end();
        drop(named);
    }
}
