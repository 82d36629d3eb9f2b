//! Conversations over many links on random schedules, checked against a small model.
//!
//! Links start, are attached, crash and fall idle while calls, questions and notifications pass;
//! clients disconnect, resume and repeat their requests. The model knows which link has received
//! each call, asked each question and written each notification, and what each client has read. It
//! checks that
//! - each call has exactly one outcome, the server's or one error, on a stream of its own exchange;
//! - a call reaches a second link only if the first cannot have read it, or if it changes nothing;
//! - each answer of a client reaches the link and the question that it is for, once, or nothing;
//! - no message of a link is on a stream of a call that has never run on that link, and none is
//!   read twice;
//! - the end of a link leaves nothing of it, and each open entry has exactly one timer;
//! - a setting that a server has granted is on every link that is attached later.
//!
//! A seed determines a schedule. `BRIDGE_SCHEDULES` is the number of schedules, `BRIDGE_SEED` the
//! first seed. A failed schedule prints its seed.

mod client;
mod server;

use std::collections::{BTreeMap, HashMap, HashSet};

use fastrand::Rng;

use super::*;
use crate::{
    fuzz_tests::env_number,
    streams::{EventId, ResponseMode, StreamEvent},
};

const IDS: [&str; 6] = ["1", "\"1\"", "0", "-1", "1.5", "\"a\""];
const MAX_IN_FLIGHT: usize = 6;
const MAX_QUESTIONS: usize = 4;
const REPLAY_TIME: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A call, by its nonce.
#[derive(Debug)]
struct CallModel {
    raw: &'static str,
    repeatable: bool,
    number: u64,
    /// The links that it was sent to.
    placed: HashSet<LinkNumber>,
    /// The links whose servers have read it.
    runs: Vec<LinkNumber>,
    outcomes: usize,
    /// Its client left without an event id, or has replaced it.
    abandoned: bool,
}

/// A reader of the stream of a call, or of a listener.
#[derive(Debug)]
struct Connection {
    call: Option<usize>,
    reader: Reader,
    /// The last event, once the connection is a stream.
    last: Option<EventId>,
}

#[derive(Debug)]
struct QuestionModel {
    link: LinkNumber,
    server_id: usize,
    /// Its id toward the client, once it was read.
    client_id: Option<Id>,
    /// The server has an answer or an error.
    closed: bool,
}

struct Simulation {
    rng: Rng,
    machine: StateMachine,
    now: Instant,
    nonce: usize,
    next_link: LinkNumber,
    /// The links that have not ended, with the calls that they have got, by number.
    links: BTreeMap<LinkNumber, HashMap<u64, usize>>,
    calls: HashMap<usize, CallModel>,
    connections: Vec<Connection>,
    disconnected: Vec<(Option<usize>, EventId)>,
    questions: HashMap<usize, QuestionModel>,
    /// The link of each notification.
    notifications: HashMap<usize, LinkNumber>,
    read: HashSet<usize>,
    granted_level: Option<usize>,
    /// The level that each link has got.
    levels: HashMap<LinkNumber, usize>,
}

/// Prints the seed of a failed schedule.
struct SeedGuard(u64);

fn config() -> Config {
    let mut config = Config {
        max_in_flight: MAX_IN_FLIGHT,
        max_listeners: 2,
        max_server_requests: MAX_QUESTIONS,
        request_timeout: REQUEST_TIMEOUT,
        question_timeout: REQUEST_TIMEOUT,
        replay_time: REPLAY_TIME,
        ..Config::default()
    };
    config.backlog.messages = 8;
    config
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut simulation = Self {
            rng: Rng::with_seed(seed),
            machine: StateMachine::new(config(), "tag", None),
            now: Instant::now(),
            nonce: 0,
            next_link: 1,
            links: BTreeMap::new(),
            calls: HashMap::new(),
            connections: Vec::new(),
            disconnected: Vec::new(),
            questions: HashMap::new(),
            notifications: HashMap::new(),
            read: HashSet::new(),
            granted_level: None,
            levels: HashMap::new(),
        };
        simulation.handshake();
        simulation
    }

    fn step(&mut self) {
        match self.rng.usize(..30) {
            0..=6 => self.request(),
            7..=11 => self.answer(),
            12 => self.answer_on_another_link(),
            13..=14 => self.ask(),
            15..=16 => self.answer_question(),
            17 => self.notify(),
            18 => self.listen(),
            19..=20 => self.disconnect(),
            21..=22 => self.resume(),
            23 => self.prime_one(),
            24 => self.cancel(),
            25 => self.rotate(),
            26 => self.crash(),
            27 => self.retire_or_detach(),
            28 => self.set_level(),
            _ => self.advance(),
        }
        self.note_places();
        if self.rng.usize(..3) > 0 {
            self.pump();
            self.note_places();
        }
        if self.rng.bool() {
            self.read_all();
        }
        self.check_tables();
    }

    /// Notes where the calls are now.
    fn note_places(&mut self) {
        for call in self.calls.values_mut() {
            call.placed
                .extend(self.machine.calls.get(call.number).and_then(|call| call.link()));
        }
    }

    fn nonce(&mut self) -> usize {
        self.nonce += 1;
        self.nonce
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.rng.choice(from).copied()
    }

    fn request(&mut self) {
        let raw = self.pick(&IDS).expect("ids");
        let repeatable = self.rng.bool();
        let method = if repeatable { "resources/read" } else { "tools/call" };
        let nonce = self.nonce();
        let text = format!(
            r#"{{"jsonrpc":"2.0","id":{raw},"method":"{method}","params":{{"_meta":{{"progressToken":{nonce}}},"nonce":{nonce}}}}}"#
        );
        let before = self.machine.calls.by_key(id(raw).key());
        let attached = before.and_then(|number| self.machine.calls.get(number));
        let attached = attached.is_some_and(|call| self.machine.streams.is_attached(call.stream));
        match self.machine.request(self.now, message(&text), id(raw), method) {
            Ok(reader) => {
                assert!(!attached, "{raw} is in flight");
                // Each text is different, so the request replaces one whose client is gone.
                self.calls.insert(
                    nonce,
                    CallModel {
                        raw,
                        repeatable,
                        number: self.machine.calls.by_key(id(raw).key()).expect("in flight"),
                        placed: HashSet::new(),
                        runs: Vec::new(),
                        outcomes: 0,
                        abandoned: false,
                    },
                );
                self.connections.push(Connection {
                    call: Some(nonce),
                    reader,
                    last: None,
                });
            }
            Err(reason) if attached => assert_eq!(reason, RejectReason::IdInFlight),
            Err(reason) => assert_eq!(reason, RejectReason::TooManyRequests),
        }
    }

    fn listen(&mut self) {
        if let Ok(reader) = self.machine.listen(self.now) {
            self.connections.push(Connection {
                call: None,
                reader,
                last: None,
            });
            self.prime(self.connections.len() - 1);
        }
    }

    fn prime_one(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            self.prime(at);
        }
    }

    /// Turns a connection into an event stream, unless its call waits for a server.
    fn prime(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if connection.last.is_none() && !self.machine.is_waiting(connection.reader.stream) {
            connection.last = self.machine.begin_events(connection.reader).map(|(id, _)| id);
        }
    }

    fn disconnect(&mut self) {
        if !self.connections.is_empty() {
            let at = self.rng.usize(..self.connections.len());
            let connection = self.connections.swap_remove(at);
            self.leave(connection);
        }
    }

    fn leave(&mut self, connection: Connection) {
        self.machine.detach_reader(self.now, connection.reader);
        match (connection.last, connection.call) {
            (Some(last), call) => self.disconnected.push((call, last)),
            (None, Some(call)) => {
                self.calls.get_mut(&call).expect("a call").abandoned = true;
            }
            (None, None) => {}
        }
    }

    fn resume(&mut self) {
        if self.disconnected.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.disconnected.len());
        let (call, last) = self.disconnected.swap_remove(at);
        match self.machine.resume(self.now, &last) {
            Ok(reader) => {
                let call = call.filter(|_| !last.requests.ids().is_empty());
                let last = self.machine.begin_events(reader).map(|(id, _)| id);
                self.connections.push(Connection { call, reader, last });
            }
            Err(RejectReason::StreamComplete) => assert!(last.is_final),
            Err(reason) => {
                assert_eq!(reason, RejectReason::TooManyRequests);
                self.disconnected.push((call, last));
            }
        }
    }

    fn cancel(&mut self) {
        let raw = self.pick(&IDS).expect("ids");
        let method = "notifications/cancelled";
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"requestId":{raw}}}}}"#);
        self.machine.notify(self.now, message(&text), method).expect("taken");
    }

    fn advance(&mut self) {
        self.now += Duration::from_secs(self.rng.u64(1..25));
        self.machine.run_timers(self.now);
    }

    /// Checks that the tables are consistent and within their limits.
    fn check_tables(&self) {
        let machine = &self.machine;
        let retained = machine.streams.count_retained();
        let entries = machine.calls.len() + machine.questions.len() + retained;
        assert_eq!(machine.timers.all().count(), entries, "each open entry has one timer");
        assert!(machine.calls.len() <= MAX_IN_FLIGHT && machine.questions.len() <= MAX_QUESTIONS);
        for link in 1..self.next_link {
            if !self.links.contains_key(&link) {
                assert_eq!(machine.in_flight(link), 0, "link {link} has ended");
            }
        }
    }

    /// Ends all links and lets all clients come back: each call has its outcome, and nothing is
    /// left.
    fn end(mut self) {
        self.pump();
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.end_link(link);
        }
        self.machine
            .refuse(self.now, &(std::sync::Arc::new(std::fmt::Error) as Refusal));
        assert!(self.machine.calls.is_empty() && self.machine.questions.is_empty());
        self.read_all();
        for connection in std::mem::take(&mut self.connections) {
            assert_eq!(connection.call, None, "a call without an outcome");
            self.machine.detach_reader(self.now, connection.reader);
        }
        while let Some(at) = self.disconnected.iter().position(|(call, _)| call.is_some()) {
            let (call, last) = self.disconnected.swap_remove(at);
            if let Ok(reader) = self.machine.resume(self.now, &last) {
                let last = self.machine.begin_events(reader).map(|(id, _)| id);
                self.connections.push(Connection { call, reader, last });
                self.read_all();
            }
        }
        for (nonce, call) in &self.calls {
            assert!(
                call.outcomes == 1 || call.abandoned && call.outcomes == 0,
                "{nonce}: {call:?}"
            );
        }
        self.machine.run_timers(self.now + 2 * REPLAY_TIME);
        assert!(self.machine.next_deadline().is_none());
        assert!(self.machine.calls.is_empty() && self.machine.links.is_empty());
    }
}

impl Drop for SeedGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the schedule of BRIDGE_SEED={} has failed", self.0);
        }
    }
}

#[test]
fn each_message_reaches_the_one_that_it_is_for() {
    let first = env_number("BRIDGE_SEED", 0);
    for seed in first..first + env_number("BRIDGE_SCHEDULES", 10_000) {
        let guard = SeedGuard(seed);
        let mut simulation = Simulation::new(seed);
        for _ in 0..20 + simulation.rng.usize(..80) {
            simulation.step();
        }
        simulation.end();
        drop(guard);
    }
}
