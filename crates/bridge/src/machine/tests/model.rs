//! Conversations over many links on random schedules, checked against a model of the specification.
//!
//! The model predicts where each call is, when it ends and with which line, which answer each
//! server gets, and which lines each client may read at which position. Links start, replace each
//! other, close and crash; clients leave, come back at any position and repeat their requests, some
//! of which have no session id; now and then the conversation is made again from its snapshot. The
//! model checks that
//! - each request has exactly one outcome, a server's (byte for byte but for the id) or one error,
//!   on a stream of its own exchange;
//! - requests without a session id run side by side whatever their ids are, and a cancellation
//!   without one acts only if exactly one request has its id;
//! - a request reaches a second server only if the first has not read it, or if it changes nothing;
//! - an answer, a progress and a cancellation of a client reach the link that they are for, once,
//!   or nothing; each question gets one answer or one error while its server waits;
//! - no message of a link is on a stream whose calls have never been on that link, and none arrives
//!   twice;
//! - each setting that a server has granted is requested from each link that is attached later, and
//!   from the current one;
//! - the end of a link leaves nothing of it, all tables are within their limits, each open entry
//!   has exactly one timer, and each link has as much in flight as the model has counted.
//!
//! A seed determines a schedule. `BRIDGE_SCHEDULES` is the number of schedules, `BRIDGE_SEED` the
//! first seed. A failed schedule prints its seed.

mod checks;
mod client;
mod links;
mod questions;
mod reading;
mod requests;
mod server;
mod server_reads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;

use super::*;
use crate::{fuzz_tests::env_number, jsonrpc::MessageKind, streams::EventId};

/// Ids that are easy to confuse. The first three are one id in three spellings.
const IDS: [&str; 9] = ["1", "1.0", "10e-1", "\"1\"", "0", "\"\"", "-1", "1.5", "\"a\\u0062\""];

/// The ids that all servers use for their questions.
const SERVER_IDS: [&str; 4] = ["0", "1", "\"1\"", "2.0"];

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const CANCEL_GRACE: Duration = Duration::from_secs(5);
const REPLAY_TIME: Duration = Duration::from_secs(30);
const TASK_TIME: Duration = Duration::from_secs(40);
const MAX_IN_FLIGHT: usize = 4;
const MAX_LISTENERS: usize = 2;
const MAX_QUESTIONS: usize = 3;
const MAX_LINKS: usize = 3;
/// The number of times that a call is sent again which a server may have read.
const MAX_RESENDS: u8 = 3;

/// Names a request, a question or a notification in all texts. Never reused.
type Nonce = usize;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Changes something at the server.
    Act,
    Read,
    /// Fetches the list of tools.
    List,
    Level(&'static str),
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    CreateTask,
    /// Fetches the result of a task.
    TaskResult(Nonce),
}

/// A request in flight.
#[derive(Clone, Debug)]
struct CallModel {
    raw: &'static str,
    /// It has a session id, so that no other request with one may have its id.
    keyed: bool,
    action: Action,
    /// The parameters, and the progress token in them.
    params: String,
    token: Option<String>,
    number: u64,
    stream: Option<StreamId>,
    /// The exchange that waits for the response, if any does.
    exchange: Option<usize>,
    /// `None` while it waits for a link.
    place: Option<LinkNumber>,
    /// The server there may have read it.
    written: bool,
    resends: u8,
    cancelled: bool,
    deadline: Instant,
}

/// The outcome of one request of an exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    /// The response that the client has to read.
    Response(String),
    Error,
    /// An error of the owner, with an HTTP status if the response has not begun.
    Refused,
    /// The stream is gone, and the next one says so.
    Lost,
    Read,
}

/// One POST with requests, or one GET, with all its connections.
#[derive(Debug)]
struct Exchange {
    is_listener: bool,
    requests: BTreeMap<&'static str, Outcome>,
    instance: usize,
    stream: StreamId,
    /// The links on which its calls have been.
    links: BTreeSet<LinkNumber>,
    /// The lines that the client has read on the stream, by position.
    history: BTreeMap<u64, (EventId, String)>,
    /// The client can not resume, or another exchange has taken the request over.
    abandoned: bool,
    /// The time of the last response, from which a stream without reader expires.
    settled_at: Option<Instant>,
}

#[derive(Debug)]
struct Connection {
    exchange: usize,
    reader: Reader,
    is_streaming: bool,
    /// The last event that the client has.
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

/// A request of the conversation itself that a server has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnRequest {
    Initialize,
    Setting,
    List,
}

/// A link that has not ended.
#[derive(Debug, Default)]
struct LinkModel {
    /// The server has answered `initialize`, or has got that of the client.
    ready: bool,
    /// The server has read `notifications/initialized`.
    initialized: bool,
    write_closed: bool,
    /// The calls that the server has read and not answered, by number.
    got: BTreeMap<u64, Nonce>,
    own: Vec<(u64, OwnRequest)>,
    /// The list of tools that the server has.
    list: usize,
    // The lines that must be in the outbox:
    settings: VecDeque<ClientSetting>,
    probes: usize,
    /// Responses: the id, and the line unless it is an error.
    responses: Vec<(&'static str, Option<String>)>,
    /// Cancellations of calls, by number.
    cancellations: Vec<u64>,
    notifications: Vec<String>,
}

#[derive(Debug)]
struct QuestionModel {
    link: LinkNumber,
    raw: &'static str,
    number: u64,
    /// Its id toward the client.
    id: Id,
    open: bool,
    answered: bool,
    read: bool,
    /// The client has read that it is given up.
    withdrawn: bool,
}

/// A notification of a server, as a client may read it.
#[derive(Debug)]
struct Said {
    line: String,
    link: LinkNumber,
    to: Audience,
}

#[derive(Debug, PartialEq, Eq)]
enum Audience {
    Nobody,
    Exchange(usize),
    /// A listener, or an exchange on the same link.
    Any,
}

#[derive(Debug)]
struct TaskModel {
    link: LinkNumber,
    busy: bool,
    deadline: Instant,
    /// The number and the progress token of the call that has made it.
    progress: Option<(u64, String)>,
}

struct Simulation {
    rng: Rng,
    config: Config,
    machine: StateMachine,
    /// Counts the machines.
    instance: usize,
    now: Instant,
    nonce: Nonce,
    batches: bool,
    /// The replay buffer is large enough that no stream is evicted before it expires.
    ample_replay: bool,
    links: BTreeMap<LinkNumber, LinkModel>,
    current: Option<LinkNumber>,
    newest: LinkNumber,
    last_link: LinkNumber,
    /// What the machine has asked for last.
    want: Option<LinkNumber>,
    calls: BTreeMap<Nonce, CallModel>,
    /// The links whose servers may have read each request, by number.
    readers: BTreeMap<u64, Vec<LinkNumber>>,
    /// The requests by the numbers that this machine has given them.
    numbers: BTreeMap<u64, Option<Nonce>>,
    exchanges: Vec<Exchange>,
    connections: Vec<Connection>,
    disconnected: Vec<Disconnected>,
    questions: BTreeMap<Nonce, QuestionModel>,
    said: BTreeMap<Nonce, Said>,
    /// Everything but responses that a client has read.
    read: BTreeSet<Nonce>,
    tasks: BTreeMap<Nonce, TaskModel>,
    level: Option<&'static str>,
    subscriptions: BTreeSet<&'static str>,
    /// The list of tools that the client knows.
    known_list: Option<usize>,
    /// Announcements of changed lists: made, and read.
    list_changes: (usize, usize),
}

/// Prints the seed of a failed schedule.
pub(super) struct SeedGuard(pub(super) u64);

fn config(ample_replay: bool) -> Config {
    let mut config = Config {
        max_in_flight: MAX_IN_FLIGHT,
        max_listeners: MAX_LISTENERS,
        max_server_requests: MAX_QUESTIONS,
        request_timeout: REQUEST_TIMEOUT,
        question_timeout: REQUEST_TIMEOUT,
        cancel_grace: CANCEL_GRACE,
        replay_time: REPLAY_TIME,
        ..Config::default()
    };
    config.backlog.messages = 4;
    if !ample_replay {
        config.replay_buffer.messages = 5;
        config.replay_buffer.bytes = 400;
    }
    config
}

impl Action {
    /// True if it changes nothing, or nothing further when it comes twice.
    fn is_repeatable(self) -> bool {
        !matches!(self, Self::Act | Self::CreateTask | Self::TaskResult(_))
    }

    fn method(self) -> &'static str {
        match self {
            Self::Act | Self::CreateTask => "tools/call",
            Self::Read => "resources/read",
            Self::List => "tools/list",
            Self::Level(_) => "logging/setLevel",
            Self::Subscribe(_) => "resources/subscribe",
            Self::Unsubscribe(_) => "resources/unsubscribe",
            Self::TaskResult(_) => "tasks/result",
        }
    }

    fn params(self) -> String {
        match self {
            Self::Act => r#""name":"x","#.to_owned(),
            Self::Read | Self::List => String::new(),
            Self::Level(level) => format!(r#""level":"{level}","#),
            Self::Subscribe(uri) | Self::Unsubscribe(uri) => format!(r#""uri":"{uri}","#),
            Self::CreateTask => r#""name":"x","task":{},"#.to_owned(),
            Self::TaskResult(task) => format!(r#""taskId":"t{task}","#),
        }
    }

    fn setting(self) -> Option<ClientSetting> {
        match self {
            Self::Level(level) => Some(ClientSetting::LogLevel(level.into())),
            Self::Subscribe(uri) => Some(ClientSetting::Subscribe(uri.into())),
            Self::Unsubscribe(uri) => Some(ClientSetting::Unsubscribe(uri.into())),
            Self::Act | Self::Read | Self::List | Self::CreateTask | Self::TaskResult(_) => None,
        }
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (batches, ample_replay) = (rng.usize(..3) == 0, rng.usize(..4) > 0);
        let config = config(ample_replay);
        let mut simulation = Self {
            rng,
            machine: StateMachine::new(config.clone(), "tag", "grant", None),
            config,
            instance: 0,
            now: Instant::now(),
            nonce: 0,
            batches,
            ample_replay,
            links: BTreeMap::new(),
            current: None,
            newest: 0,
            last_link: 0,
            want: None,
            calls: BTreeMap::new(),
            readers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            exchanges: Vec::new(),
            connections: Vec::new(),
            disconnected: Vec::new(),
            questions: BTreeMap::new(),
            said: BTreeMap::new(),
            read: BTreeSet::new(),
            tasks: BTreeMap::new(),
            level: None,
            subscriptions: BTreeSet::new(),
            known_list: None,
            list_changes: (0, 0),
        };
        simulation.open_session();
        simulation
    }

    fn once_in(&mut self, count: usize) -> bool {
        self.rng.usize(..count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        self.rng.choice(from).copied()
    }

    fn pick_link(&mut self) -> Option<LinkNumber> {
        let links: Vec<_> = self.links.keys().copied().collect();
        self.pick(&links)
    }

    fn nonce(&mut self) -> Nonce {
        self.nonce += 1;
        self.nonce
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
        for _ in 0..20 + simulation.rng.usize(..30) {
            simulation.step();
        }
        simulation.end();
        drop(guard);
    }
}
