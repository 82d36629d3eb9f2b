//! The state machine on random schedules, checked against a small model of the specification.
//!
//! The model knows the requests of each exchange, the lines that its client has read, and the
//! position at which its connection broke. It checks that each request gets exactly one response or
//! one error, on a stream of its own exchange and byte for byte except for the id, however often
//! its client disconnects and resumes, and that no message arrives twice.
//!
//! A seed determines a schedule. `BRIDGE_MODEL_SCHEDULES` is the number of schedules,
//! `BRIDGE_MODEL_SEED` the first seed. A failed schedule prints its seed.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;

use super::*;
use crate::{
    fuzz_tests::env_number,
    jsonrpc::MessageError,
    streams::{EventId, ResponseMode, StreamEvent},
};

/// Ids that are easy to confuse. The first three are one id in three spellings.
const IDS: [&str; 9] = ["1", "1.0", "10e-1", "\"1\"", "0", "\"\"", "-1", "1.5", "\"a\\u0062\""];

/// Lines that a server should not write: invalid or meaningless messages.
const INVALID_LINES: [&str; 8] = [
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

/// A request in flight.
#[derive(Clone, Debug)]
struct Sent {
    number: u64,
    raw: &'static str,
    nonce: usize,
    exchange: usize,
    deadline: Instant,
}

/// One POST with requests, or one GET, with all its connections.
#[derive(Debug, Default)]
struct Exchange {
    /// The requests without an outcome, and the nonces of their responses.
    open: HashMap<&'static str, usize>,
    /// The lines that the client has read.
    read: HashSet<String>,
    /// The client disconnected without an event id and cannot resume.
    unresumable: bool,
    /// The time of the last response, from which a stream without reader expires.
    settled_at: Option<Instant>,
    is_listener: bool,
}

#[derive(Debug)]
struct Connection {
    exchange: usize,
    reader: Reader,
    /// The last event, once the connection is a stream.
    last: Option<EventId>,
    /// Events on it no longer arrive, and no side has noticed.
    broken: bool,
}

#[derive(Debug)]
struct Disconnected {
    exchange: usize,
    last: EventId,
    disconnected_at: Instant,
}

struct Simulation {
    rng: Rng,
    machine: StateMachine,
    now: Instant,
    nonce: usize,
    batches: bool,
    /// The replay buffer is large enough that no stream is evicted before it expires.
    ample_replay: bool,
    in_flight: Vec<Sent>,
    exchanges: Vec<Exchange>,
    connections: Vec<Connection>,
    disconnected: Vec<Disconnected>,
    /// Lines of the server other than responses, and the exchange that has read them.
    notifications: HashMap<String, Option<usize>>,
    /// The number of responses that the server still expects, by request id.
    expected_responses: HashMap<usize, usize>,
}

/// Prints the seed of a failed schedule.
struct SeedGuard(u64);

fn config(ample_replay: bool) -> Config {
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
    if !ample_replay {
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

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (batches, ample_replay) = (rng.bool(), rng.usize(..4) > 0);
        let mut simulation = Self {
            rng,
            machine: StateMachine::new(config(ample_replay)),
            now: Instant::now(),
            nonce: 0,
            batches,
            ample_replay,
            in_flight: Vec::new(),
            exchanges: Vec::new(),
            connections: Vec::new(),
            disconnected: Vec::new(),
            notifications: HashMap::new(),
            expected_responses: HashMap::new(),
        };
        if batches {
            simulation.handshake();
        }
        simulation
    }

    fn handshake(&mut self) {
        let text = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
        let taken = self.machine.request(self.now, message(text), id("0"), "initialize");
        let reader = taken.expect("room");
        self.machine.outbox.take().expect("the request");
        self.server_message(r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-03-26"}}"#);
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
                self.server_message(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"unmatched"}}"#));
                self.server_message(&format!(r#"{{"jsonrpc":"2.0","id":"{number}","result":"unmatched"}}"#));
            }
            16 => {
                let line = self.pick(&INVALID_LINES);
                self.server_line(line);
            }
            17..=18 => self.disconnect(),
            19..=21 => self.resume_one(),
            22 => self.replace_reader(),
            23 => self.cancel(),
            24..=25 => {
                let token = self.rng.usize(..4);
                self.send_notification(&format!(
                    r#""method":"notifications/progress","params":{{"progressToken":{token},"progress":1,"#
                ));
            }
            26 => self.send_notification(r#""method":"notifications/message","params":{"#),
            27..=28 => self.send_server_request(),
            29 => {
                let raw = self.rng.usize(..4).to_string();
                let text = format!(r#"{{"jsonrpc":"2.0","id":{raw},"result":{{}}}}"#);
                self.machine.respond(&message(&text), Some(&id(&raw))).expect("taken");
            }
            30 => self.listen(),
            31 => {
                // The delay for a JSON answer has passed.
                let count = self.connections.len();
                if count > 0 {
                    let at = self.rng.usize(..count);
                    self.prime(at);
                }
            }
            32..=33 => self.break_one(),
            _ => {
                let seconds = self.pick(&[1, 4, 9, 25]);
                self.advance(seconds);
            }
        }
        self.check_outbox();
        if !self.once_in(3) {
            self.read_all();
        }
        self.check_tables();
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

    fn is_in_flight(&self, raw: &str) -> bool {
        self.in_flight.iter().any(|sent| id(sent.raw).key() == id(raw).key())
    }

    fn has_room(&self, requests: usize) -> bool {
        self.in_flight.len() + requests <= MAX_IN_FLIGHT && self.attached() < MAX_IN_FLIGHT + MAX_LISTENERS
    }

    fn attached(&self) -> usize {
        self.machine.streams.count_attached()
    }

    fn request(&mut self) {
        let raw = self.pick(&IDS);
        let (text, nonce) = self.text(raw);
        let (in_flight, room) = (self.is_in_flight(raw), self.has_room(1));
        let taken = self.machine.request(self.now, message(&text), id(raw), "m");
        if in_flight {
            assert_eq!(taken, Err(RejectReason::IdInFlight));
        } else if !room {
            assert_eq!(taken, Err(RejectReason::TooManyRequests));
        } else {
            self.sent(taken.expect("room"), &[(raw, nonce)]);
        }
    }

    fn batch(&mut self) {
        let mut requests = Vec::new();
        let mut texts = Vec::new();
        for _ in 0..1 + self.rng.usize(..3) {
            let raw = self.pick(&IDS);
            let (text, nonce) = self.text(raw);
            texts.push(text);
            requests.push((raw, nonce));
        }
        let messages = split_batch(format!("[{}]", texts.join(",\n")).as_bytes()).expect("messages");
        let keys: HashSet<_> = requests.iter().map(|(raw, _)| id(raw).key().clone()).collect();
        let conflict = keys.len() < requests.len() || requests.iter().any(|(raw, _)| self.is_in_flight(raw));
        let room = self.has_room(requests.len());
        let taken = self.machine.batch(self.now, messages);
        if !self.batches {
            assert_eq!(taken, Err(RejectReason::InvalidMessage(MessageError::Batch)));
        } else if conflict {
            assert_eq!(taken, Err(RejectReason::IdInFlight));
        } else if !room {
            assert_eq!(taken, Err(RejectReason::TooManyRequests));
        } else {
            self.sent(taken.expect("room").expect("a stream"), &requests);
        }
    }

    /// Records accepted requests, and checks that the server gets them under unused numbers.
    fn sent(&mut self, reader: Reader, requests: &[(&'static str, usize)]) {
        let exchange = self.exchanges.len();
        let lines = self.machine.outbox.take().expect("the requests");
        let lines: Vec<_> = std::str::from_utf8(&lines).expect("text").lines().collect();
        assert_eq!(lines.len(), requests.len());
        for (line, (raw, nonce)) in lines.into_iter().zip(requests) {
            let sent = message(line);
            assert_eq!(sent.param("nonce"), Some(nonce.to_string().as_str()));
            let MessageKind::Request { id, .. } = sent.kind() else {
                panic!("{line} is not a request")
            };
            let number = id.number().expect("a number of the bridge's own");
            assert!(self.in_flight.iter().all(|sent| sent.number != number));
            self.in_flight.push(Sent {
                number,
                raw,
                nonce: *nonce,
                exchange,
                deadline: self.now + Duration::from_secs(REQUEST_TIMEOUT),
            });
        }
        self.exchanges.push(Exchange {
            open: requests.iter().copied().collect(),
            ..Exchange::default()
        });
        self.connections.push(Connection::new(exchange, reader));
    }

    fn answer(&mut self) -> Option<u64> {
        if self.in_flight.is_empty() {
            return None;
        }
        let at = self.rng.usize(..self.in_flight.len());
        let sent = self.in_flight.remove(at);
        let (number, nonce) = (sent.number, sent.nonce);
        let outcome = self.pick(&["result", "error"]);
        let line = format!(r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{number}, "jsonrpc":"2.0"}}"#);
        if self.batches && self.once_in(3) {
            self.server_line(&format!("[{line}]"));
        } else {
            self.server_message(&line);
        }
        self.start_expiry(sent.exchange);
        Some(number)
    }

    fn answer_twice(&mut self) {
        if let Some(number) = self.answer() {
            self.server_message(&format!(r#"{{"jsonrpc":"2.0","id":{number},"result":"twice"}}"#));
        }
    }

    /// Starts the expiry of an exchange without requests in flight.
    fn start_expiry(&mut self, exchange: usize) {
        if self.in_flight.iter().all(|sent| sent.exchange != exchange) {
            self.exchanges[exchange].settled_at = Some(self.now);
        }
    }

    fn server_message(&mut self, line: &str) {
        self.machine.receive(self.now, message(line));
    }

    /// Handles a line of the server like the link task.
    fn server_line(&mut self, line: &str) {
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
            Err(reason) => assert!(!room && reason == RejectReason::TooManyRequests),
        }
    }

    /// Turns a connection into an event stream.
    fn prime(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.last.is_none() {
            connection.last = self.machine.streams.prime(connection.reader);
        }
    }

    /// Breaks a connection unnoticed.
    fn break_one(&mut self) {
        let count = self.connections.len();
        if count > 0 {
            let at = self.rng.usize(..count);
            let connection = &mut self.connections[at];
            connection.broken = connection.last.is_some();
        }
    }

    /// Disconnects a client.
    fn disconnect(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.disconnect_at(at);
        }
    }

    fn disconnect_at(&mut self, at: usize) {
        let connection = self.connections.swap_remove(at);
        self.machine.detach(self.now, connection.reader);
        match connection.last {
            Some(last) => self.disconnected.push(Disconnected {
                exchange: connection.exchange,
                last,
                disconnected_at: self.now,
            }),
            None => self.exchanges[connection.exchange].unresumable = true,
        }
    }

    fn resume_one(&mut self) {
        if self.disconnected.is_empty() || !self.has_room(0) {
            return;
        }
        let at = self.rng.usize(..self.disconnected.len());
        let client = self.disconnected.swap_remove(at);
        self.resume(&client);
    }

    fn resume(&mut self, client: &Disconnected) {
        let reader = self.machine.resume(self.now, &client.last).expect("room");
        let exchange = &mut self.exchanges[client.exchange];
        let expiry_start = exchange
            .settled_at
            .map(|settled_at| settled_at.max(client.disconnected_at));
        let expired = expiry_start.is_some_and(|start| self.now >= start + Duration::from_secs(REPLAY_TIME));
        let same = reader.stream == client.last.stream;
        if !exchange.is_listener && self.ample_replay {
            assert_eq!(same, !expired, "retained until it expires and no longer");
        }
        let mut connection = Connection::new(client.exchange, reader);
        if exchange.is_listener && !same {
            // The client gets a new stream.
            connection.exchange = self.exchanges.len();
            self.exchanges.push(Exchange {
                is_listener: true,
                ..Exchange::default()
            });
        }
        self.connections.push(connection);
        self.prime(self.connections.len() - 1);
    }

    /// Resumes a stream whose old connection still seems open.
    fn replace_reader(&mut self) {
        let streams: Vec<usize> = (0..self.connections.len())
            .filter(|at| self.connections[*at].last.is_some())
            .collect();
        if streams.is_empty() || !self.has_room(0) {
            return;
        }
        let at = self.pick(&streams);
        let old = self.connections.swap_remove(at);
        let Some(last) = old.last else { return };
        let client = Disconnected {
            exchange: old.exchange,
            last,
            disconnected_at: self.now,
        };
        // The new reader gets delivered events again, and the old reader gets no more.
        let reader = self.machine.resume(self.now, &client.last).expect("room");
        let context = Context::from_waker(Waker::noop());
        if reader.stream == old.reader.stream {
            assert_eq!(self.machine.poll_event(old.reader, &context), Poll::Ready(None));
        }
        self.machine.detach(self.now, old.reader);
        let mut exchange = client.exchange;
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
        for sent in &mut self.in_flight {
            if id(sent.raw).key() == id(raw).key() {
                sent.deadline = sent.deadline.min(grace);
            }
        }
    }

    fn send_notification(&mut self, start: &str) {
        let nonce = self.nonce();
        let line = format!(r#"{{"jsonrpc":"2.0",{start}"once":{nonce}}}}}"#);
        self.notifications.insert(line.clone(), None);
        self.server_message(&line);
    }

    fn send_server_request(&mut self) {
        let (id, nonce) = (self.rng.usize(..4), self.nonce());
        let line = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","params":{{"once":{nonce}}}}}"#);
        // The server expects one response even if it repeats an id.
        self.expected_responses.insert(id, 1);
        self.notifications.insert(line.clone(), None);
        self.server_message(&line);
    }

    fn advance(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        // Runs each timer at its deadline, like the link task.
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.machine.run_timers(self.now);
            let timed_out: Vec<_> = self
                .in_flight
                .extract_if(.., |sent| sent.deadline <= self.now)
                .collect();
            for sent in timed_out {
                self.start_expiry(sent.exchange);
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

    /// Reads all pending messages. Returns true if the exchange is over.
    fn read(&mut self, at: usize) -> bool {
        let context = Context::from_waker(Waker::noop());
        let (reader, exchange) = (self.connections[at].reader, self.connections[at].exchange);
        if self.connections[at].last.is_none() {
            match self.machine.streams.poll_response_mode(reader, &context) {
                Poll::Pending => return false,
                Poll::Ready(ResponseMode::Json(lines)) => {
                    lines.iter().for_each(|line| self.check_line(exchange, line));
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
                Poll::Ready(Some(StreamEvent { id, line, last })) => {
                    self.check_line(exchange, &line);
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

    /// Checks a line that a client has read: it belongs to this client and is new to all clients.
    fn check_line(&mut self, at: usize, line: &[u8]) {
        let line = std::str::from_utf8(line).expect("text").to_owned();
        let exchange = &mut self.exchanges[at];
        if let Some(reader) = self.notifications.get_mut(&line) {
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
        let evicted = line.contains("is no longer available");
        let Some(nonce) = exchange.open.remove(answered.raw()) else {
            // The errors cover all requests of a batch, even those whose responses have arrived.
            assert!(evicted, "{line} answers no request");
            return;
        };
        let raw = answered.raw();
        let outcome = if *error { "error" } else { "result" };
        let expected = format!(r#"{{"{outcome}":{{"nonce":{nonce},"x":1.50}}, "id":{raw}, "jsonrpc":"2.0"}}"#);
        let timed_out = line.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{raw},"error":{{"code":-320"#));
        assert!(line == expected || timed_out, "{line} is not the answer to {raw}");
    }

    /// Checks the other lines for the server: at most one response to each of its requests, and
    /// cancellations of requests that it knows.
    fn check_outbox(&mut self) {
        while let Some(lines) = self.machine.outbox.take() {
            for line in std::str::from_utf8(&lines).expect("text").lines() {
                let sent = message(line);
                match sent.kind() {
                    MessageKind::Response { id: Some(id), .. } => {
                        let expected_responses = self
                            .expected_responses
                            .get_mut(&id.raw().parse().expect("an id of ours"));
                        assert_eq!(
                            std::mem::take(expected_responses.expect("expected_responses")),
                            1,
                            "{line} is a second answer"
                        );
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

    /// Checks that the tables are consistent and within their limits.
    fn check_tables(&self) {
        let machine = &self.machine;
        let retained = machine.timers.all().filter_map(|timer| match timer {
            Timer::Stream(stream) => Some(*stream),
            Timer::Request(_) | Timer::ServerRequest(_) => None,
        });
        let retained: Vec<_> = retained.collect();
        let entries = machine.in_flight.len() + machine.server_requests.len() + retained.len();
        assert_eq!(machine.timers.all().count(), entries, "each open entry has one timer");
        assert_eq!(machine.in_flight.len(), self.in_flight.len());
        assert!(machine.server_requests.len() <= MAX_SERVER_REQUESTS);
        assert!(retained.iter().all(|stream| machine.streams.is_retained(*stream)));
        assert_eq!(retained.len(), machine.streams.count_retained());
        let (messages, bytes) = machine.streams.replay_usage();
        let limits = config(self.ample_replay).replay_buffer;
        assert!(messages <= limits.messages && (messages <= 1 || bytes <= limits.bytes));
        assert!(machine.streams.count() <= self.in_flight.len() + self.attached() + messages);
    }

    /// Ends the server and resumes all streams: every request has an outcome, and no state is left.
    fn end(mut self) {
        while let Some(at) = self.connections.iter().position(|connection| connection.broken) {
            self.disconnect_at(at);
        }
        self.read_all();
        if self.once_in(2) {
            self.machine.end(self.now);
            self.in_flight.clear();
            for exchange in &mut self.exchanges {
                exchange.settled_at.get_or_insert(self.now);
            }
        } else {
            while self.answer().is_some() {}
        }
        self.read_all();
        // Listeners stay open until the server ends; here they make room.
        for connection in std::mem::take(&mut self.connections) {
            assert!(self.exchanges[connection.exchange].open.is_empty());
            self.machine.detach(self.now, connection.reader);
        }
        let disconnected = std::mem::take(&mut self.disconnected);
        if self.once_in(4) {
            // The bridge of the next server has seen none of these streams.
            self.machine = StateMachine::new(config(self.ample_replay));
            self.ample_replay = false;
        }
        for client in &disconnected {
            if !self.exchanges[client.exchange].is_listener {
                self.resume(client);
                self.read_all();
            }
        }
        for exchange in &self.exchanges {
            assert!(
                exchange.unresumable || exchange.open.is_empty(),
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

impl Drop for SeedGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of BRIDGE_MODEL_SEED={} has failed", self.0);
        }
    }
}

#[test]
fn each_request_has_exactly_one_outcome() {
    let first = env_number("BRIDGE_MODEL_SEED", 0);
    for seed in first..first + env_number("BRIDGE_MODEL_SCHEDULES", 10_000) {
        let guard = SeedGuard(seed);
        let mut simulation = Simulation::new(seed);
        for _ in 0..20 + simulation.rng.usize(..80) {
            simulation.step();
        }
        simulation.end();
        drop(guard);
    }
}
