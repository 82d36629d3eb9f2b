//! Conversations with clients of 2026-07-28 on random schedules, checked against a model.
//!
//! The model predicts which call each question of a server is about, what each client reads in
//! which order, which lines each server gets, and every timer with its time. Several clients of one
//! grant call, leave, answer some or all questions, answer wrongly, retry once or several times
//! with equal and other answers, with other arguments, of another grant, with a state that is
//! tampered with or has expired; they listen, and follow tasks. Servers ask with and without hints,
//! give up, answer at any time, replace each other, close and crash; the conversation is made again
//! from its snapshot. The model checks that
//! - each request has exactly one outcome, with its own id and on its own stream, at once when it
//!   is due;
//! - a call ends once, for all retries that wait for it, and goes to a second server only if the
//!   first has not read it, or if it changes nothing and has asked nothing;
//! - an answer reaches the one question that the client has read under its key, or one whose key
//!   the server has named, once; each question gets one answer or one error while its server reads;
//! - progress, log messages and announcements are on the streams of those that they are for, and
//!   nothing else is;
//! - a retry that is not exactly the one that a state was made for changes nothing;
//! - each call, open question, gathering, kept outcome and task has exactly one timer, at the
//!   predicted time; all tables are within their limits, and nothing is left in the end.
//!
//! A seed determines a schedule. `BRIDGE_SCHEDULES` is the number of schedules, `BRIDGE_SEED` the
//! first seed. A failed schedule prints its seed.

mod calls;
mod checks;
mod client;
mod links;
mod listening;
mod questions;
mod reading;
mod retries;
mod rounds;
mod sealer;
mod server;
mod server_reads;
mod tasks;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;

use self::sealer::ClockSealer;
use super::{model::SeedGuard, *};
use crate::{
    fuzz_tests::env_number,
    modern::{ClientCapabilities, ModernError, ModernRequest},
    parked_calls::{ParkedCalls, ParkedPlace},
};

/// Ids of clients, several of which use the same.
const IDS: [&str; 4] = ["1", "\"1\"", "1.0", "\"a\\u0062\""];
/// The ids that all servers use for their questions.
const SERVER_IDS: [&str; 5] = ["0", "1", "\"1\"", "2.0", "3"];
/// Each element is a set of capabilities: with everything, with forms alone, with nothing.
const CAPABILITIES: [&str; 3] = [
    r#"{"elicitation":{"form":{},"url":{}},"sampling":{},"roots":{},"extensions":{"io.modelcontextprotocol/tasks":{}}}"#,
    r#"{"elicitation":{}}"#,
    "{}",
];
/// The keys that servers name. The last ones look like those that are made here.
const KEYS: [&str; 4] = ["user", "name", "elicitation-2", "roots-3"];
const LEVELS: [&str; 3] = ["debug", "warning", "error"];
const URIS: [&str; 2] = ["a:1", "a:2"];

const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);
const CANCEL_GRACE: Duration = Duration::from_secs(5);
const PARK_TIME: Duration = Duration::from_secs(30);
const OUTCOME_TIME: Duration = Duration::from_secs(60);
const TASK_TIME: Duration = Duration::from_secs(40);
const HOLD_TIME: Duration = Duration::from_secs(10);
const GATHER_TIME: Duration = Duration::from_millis(25);
const MAX_GATHER_TIME: Duration = Duration::from_millis(100);
const MAX_IN_FLIGHT: usize = 6;
const MAX_LISTENERS: usize = 2;
const MAX_QUESTIONS: usize = 6;
/// Of all conversations.
const MAX_PARKED: usize = 3;
const MAX_LINKS: usize = 3;
const MAX_RESENDS: u8 = 3;

/// Names a request, a question, an answer or a notification in all texts. Never reused.
type Nonce = usize;

/// The request that a client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    method: &'static str,
    name: Option<&'static str>,
    arguments: usize,
    /// The task that a request of the conversation itself is about.
    task: Option<Nonce>,
}

/// What a request of a client says about itself.
#[derive(Clone, Debug)]
struct Client {
    raw: &'static str,
    capabilities: usize,
    level: Option<usize>,
    token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StageModel {
    Running,
    /// With the time of the first question, and the time at which the client gets all.
    Gathering(Instant, Instant),
    Parked(Instant),
}

/// A call in flight.
#[derive(Clone, Debug)]
struct CallModel {
    wanted: Wanted,
    client: Client,
    number: u64,
    /// The exchange that waits for the outcome. A parked call has none.
    exchange: Option<usize>,
    /// `None` while it waits for a link.
    place: Option<LinkNumber>,
    written: bool,
    resends: u8,
    cancelled: bool,
    deadline: Instant,
    stage: StageModel,
    round: u32,
    /// The open questions about it, oldest first.
    asked: Vec<Nonce>,
    /// The number of its questions so far.
    questions: usize,
    /// The answers of its newest request that no question has taken, by key.
    ready: BTreeMap<String, String>,
    /// A question has lacked a capability.
    missing: bool,
    /// The last progress while it was parked.
    held: Option<Nonce>,
    as_task: bool,
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    /// A result of a server, which has this number in it.
    Result(Nonce),
    /// An error of a server, which has this number in it.
    ServerError(Nonce),
    /// An error of the conversation.
    Error,
    /// The error about a result that is none.
    Invalid,
    /// The questions that the client is asked, by key, about a round of a call.
    Asks {
        round: (u64, u32),
        until: Instant,
        questions: BTreeMap<String, Nonce>,
    },
    /// The pages that the client is asked to visit, with this number in them.
    Urls {
        pages: usize,
        nonce: Nonce,
        until: Instant,
    },
    Task(Nonce),
    MissingCapability,
    /// An error of the owner, with an HTTP status if the response has not begun.
    Refused,
    /// The end of a stream of announcements.
    Ended,
    Read,
}

/// One POST.
#[derive(Debug)]
struct Exchange {
    raw: &'static str,
    reader: Reader,
    attached: bool,
    is_streaming: bool,
    /// The request that it carries, and the round that it is about; `None` for a first request.
    wanted: Wanted,
    call: Option<Nonce>,
    /// The notifications to be read, in order, as texts that each has to contain.
    due: VecDeque<Vec<String>>,
    outcome: Outcome,
}

/// A request for input that a client has read.
#[derive(Clone, Debug)]
struct Asked {
    wanted: Wanted,
    state: String,
    /// The call, its number and the round; `None` if the retry begins again.
    call: Option<(Nonce, u64, u32)>,
    /// The questions with their keys.
    questions: BTreeMap<String, Nonce>,
    instance: usize,
    expires: Instant,
    /// The answers of the last retry.
    sent: Option<(BTreeMap<String, String>, String)>,
}

/// A round of a call that a retry has answered, or whose call has ended before.
#[derive(Debug, Default)]
struct RoundModel {
    answers: Option<String>,
    outcome: Option<(Outcome, Instant)>,
    /// The other retries that wait for the outcome.
    followers: Vec<(usize, Client)>,
    /// The questions that the client had when the call ended. They are about other calls.
    asked: Vec<Nonce>,
}

#[derive(Debug)]
struct QuestionModel {
    link: LinkNumber,
    raw: &'static str,
    method: &'static str,
    number: u64,
    /// The key that the server has named.
    hint: Option<&'static str>,
    key: String,
    /// The key is that of the server.
    hinted: bool,
    /// The client knows the key.
    shown: bool,
    call: Option<Nonce>,
    task: Option<Nonce>,
    open: bool,
    deadline: Instant,
}

/// A request of the conversation itself that a server has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnRequest {
    Initialize,
    Setting,
    TaskResult(Nonce),
}

/// A link that has not ended.
#[derive(Debug, Default)]
struct LinkModel {
    /// The server has answered `initialize`.
    ready: bool,
    initialized: bool,
    write_closed: bool,
    /// The calls that the server has read and not answered, by number.
    got: BTreeMap<u64, Nonce>,
    own: Vec<(u64, OwnRequest)>,
    /// The log level that the server has.
    level: Option<usize>,
    // The lines that must be in the outbox:
    settings: VecDeque<ClientSetting>,
    task_results: VecDeque<Nonce>,
    /// Responses: the id, and the line unless it is an error.
    responses: Vec<(&'static str, Option<String>)>,
    /// Cancellations of calls, by number.
    cancellations: Vec<u64>,
}

#[derive(Debug)]
struct TaskModel {
    link: LinkNumber,
    busy: bool,
    deadline: Instant,
}

/// A stream of announcements.
#[derive(Debug)]
struct Subscription {
    exchange: usize,
    tools: bool,
    resources: BTreeSet<&'static str>,
    tasks: BTreeSet<Nonce>,
}

struct Simulation {
    rng: Rng,
    config: Config,
    machine: StateMachine,
    /// The clock of the sealer.
    clock: Arc<AtomicU64>,
    begun: Instant,
    now: Instant,
    instance: usize,
    nonce: Nonce,
    /// The steps between which the servers read.
    reading_steps: usize,
    links: BTreeMap<LinkNumber, LinkModel>,
    current: Option<LinkNumber>,
    newest: LinkNumber,
    last_link: LinkNumber,
    calls: BTreeMap<Nonce, CallModel>,
    /// The links whose servers may have read each call, by number.
    readers: BTreeMap<u64, Vec<LinkNumber>>,
    exchanges: Vec<Exchange>,
    asked: Vec<Asked>,
    rounds: BTreeMap<(u64, u32), RoundModel>,
    /// The parked calls of other conversations.
    others: Vec<ParkedPlace>,
    questions: BTreeMap<Nonce, QuestionModel>,
    /// The tools and resources that have asked.
    askers: HashSet<&'static str>,
    /// The tools of the server are known.
    tools_known: bool,
    tasks: BTreeMap<Nonce, TaskModel>,
    subscriptions: Vec<Subscription>,
    /// The tasks whose outcome is fetched for those that follow them, by announcement.
    announced: BTreeMap<Nonce, Nonce>,
}

impl Simulation {
    fn new(seed: u64, snapshot: &Snapshot) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(AtomicU64::new(0));
        let config = Config {
            max_in_flight: MAX_IN_FLIGHT,
            max_listeners: MAX_LISTENERS,
            max_server_requests: MAX_QUESTIONS,
            max_parked: 1 + rng.usize(..2),
            request_timeout: REQUEST_TIMEOUT,
            question_timeout: QUESTION_TIMEOUT,
            cancel_grace: CANCEL_GRACE,
            park_time: PARK_TIME,
            parked_calls: ParkedCalls::new(MAX_PARKED),
            state_sealer: Some(Arc::new(ClockSealer(Arc::clone(&clock)))),
            ..Config::default()
        };
        let now = Instant::now();
        let mut simulation = Self {
            reading_steps: if rng.usize(..6) == 0 { 8 } else { 1 },
            rng,
            machine: StateMachine::new(config.clone(), "tag", "grant", Some(snapshot)),
            config,
            clock,
            begun: now,
            now,
            instance: 0,
            nonce: 0,
            links: BTreeMap::new(),
            current: None,
            newest: 0,
            last_link: 0,
            calls: BTreeMap::new(),
            readers: BTreeMap::new(),
            exchanges: Vec::new(),
            asked: Vec::new(),
            rounds: BTreeMap::new(),
            others: Vec::new(),
            questions: BTreeMap::new(),
            askers: HashSet::new(),
            tools_known: false,
            tasks: BTreeMap::new(),
            subscriptions: Vec::new(),
            announced: BTreeMap::new(),
        };
        simulation.replace_server();
        if simulation.rng.bool() {
            simulation.read_tools();
        }
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

fn capabilities(at: usize) -> ClientCapabilities {
    static PARSED: LazyLock<Vec<ClientCapabilities>> = LazyLock::new(|| {
        let parsed = CAPABILITIES.into_iter().map(ClientCapabilities::parse);
        parsed.collect::<Option<_>>().expect("objects")
    });
    PARSED[at].clone()
}

#[test]
fn each_call_of_a_modern_client_ends_once_for_its_owner() {
    let params = capabilities(0).initialize_params(None);
    let snapshot = Snapshot::without_handshake(&params, "2025-11-25", true).expect("a snapshot");
    let first = env_number("BRIDGE_SEED", 0);
    for seed in first..first + env_number("BRIDGE_SCHEDULES", 10_000) {
        let guard = SeedGuard(seed);
        let mut simulation = Simulation::new(seed, &snapshot);
        for _ in 0..15 + simulation.rng.usize(..20) {
            simulation.step();
        }
        simulation.end();
        drop(guard);
    }
}
