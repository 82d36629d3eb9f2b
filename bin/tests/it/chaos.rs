//! Everything at once: constant load, credentials that are renewed every second, children that are killed, idleness, restarts of the
//! broker.
//!
//! What must hold: no request fails but those in flight on a child that is killed, no answer is another session's, no
//! call is made twice, no session is lost, and in the end no child is left. The short form runs with all tests:
//!
//! | variable | short form | |
//! |---|---|---|
//! | `CHAOS_SECONDS` | 24 | how long it goes on |
//! | `CHAOS_TOKEN_SECONDS` | 2 | how long a Forgejo token is said to live; at half of it each session moves to a fresh child |
//! | `CHAOS_SEED` | the clock | what the times of kills and the pauses of clients are drawn from; a failure names it |
//!
//! Who took which call is in the `ledger`, which is kept from the broker's log: each call leaves a trace on the standard error of
//! the child that takes it. By it `oracle` judges the calls that failed. `load` is the clients, `havoc` what happens to them.

mod faults;
mod ledger;
mod listening;
mod load;
pub(crate) mod oracle;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    faults::{Kill, Stop},
    ledger::{Ledger, Tag},
    load::RawSession,
    oracle::{Call, Heard, Oracle},
};
use crate::harness::{Harness, open_session};

/// What takes its share of the load: raw sessions here, more kinds where the SDKs are.
pub(crate) const SESSIONS: usize = 32;
const RESTARTS: u32 = 5;
const IDLE: Duration = Duration::from_secs(2);
/// How long a Forgejo token really lives: longer than it says, since Forgejo cuts its seconds, and a machine that has
/// no time for a renewal is no fault of the broker.
const TOKEN: Duration = Duration::from_secs(30);
/// How long clients may take to their end once they are told.
const LAST_CALLS: Duration = Duration::from_secs(180);
/// How much longer than planned half of the children may have been there when they are replaced: some take their time to start.
const LATE: f64 = 1.6;
/// How often a session is moved, at the least, in the time after which it is due, on a machine that keeps up.
const MOVES_WHEN_DUE: f64 = 0.6;
/// A machine keeps up if half of the calls are answered within this time. Some of it is the tool's own wait.
const PROMPT: Duration = Duration::from_millis(25);

/// What is asked of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    seed: u64,
    length: Duration,
    token: Duration,
}

/// A run: a broker with all that is done to it.
#[derive(Debug)]
pub(crate) struct Chaos {
    pub(crate) harness: Harness,
    pub(crate) run: Arc<Run>,
    plan: Plan,
    kills: Vec<Kill>,
    stops: Vec<Stop>,
    /// By session, how many of its children had answered something when one was killed last.
    struck: HashMap<Tag, usize>,
    ledger: Ledger,
    /// The clients. Each ends when the run is over, and has closed its sessions by then.
    clients: JoinSet<()>,
}

/// What the clients tell.
#[derive(Debug, Default)]
pub(crate) struct Run {
    /// Cancelled when the clients are to come to their end.
    pub(crate) over: CancellationToken,
    notes: Mutex<Notes>,
    /// Told after something was heard.
    news: Notify,
}

/// Only added to, so a poisoned lock is still whole.
#[derive(Debug, Default)]
struct Notes {
    calls: Vec<Call>,
    heard: Vec<Heard>,
    heard_marks: HashSet<String>,
    troubles: Vec<String>,
    streams: usize,
}

/// A small generator (xorshift), so that a seed names a run.
#[derive(Debug)]
pub(crate) struct Dice(u64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_rotations_crashes_idleness_and_restarts() {
    let mut chaos = Chaos::begin(Plan::from_environment(24)).await;
    for login in ["alice", "bob"] {
        chaos.load(login, SESSIONS / 2).await;
    }
    chaos.inject_faults().await;
    chaos.end().await;
}

/// The time of day everywhere: in the log, in clients in other languages, here.
pub(crate) fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

impl Plan {
    /// As the environment wants it; `seconds` if it does not say how long.
    pub(crate) fn from_environment(seconds: u64) -> Self {
        let number = |name: &str, otherwise| {
            let given = std::env::var(name).ok();
            given.map_or(otherwise, |text| text.parse().expect("a number"))
        };
        Self {
            seed: number("CHAOS_SEED", u64::from(now().subsec_nanos())),
            length: Duration::from_secs(number("CHAOS_SECONDS", seconds)),
            token: Duration::from_secs(number("CHAOS_TOKEN_SECONDS", 2)),
        }
    }
}

impl Chaos {
    /// A broker in front of a Forgejo whose tokens do not last.
    pub(crate) async fn begin(plan: Plan) -> Self {
        let idle = format!("{}s", IDLE.as_secs());
        let harness = Harness::with_persistent_socket(&[
            ("session.idle_timeout", &idle),
            ("session.reap_interval", "200ms"),
            ("session.rotate_interval", "50ms"),
            ("session.max_sessions_per_user", "64"),
            ("child.stop_grace", "2s"),
            // Each call leaves a line.
            ("child.stderr_lines_per_second", "1000"),
            ("log.filter", "info,supervisor=debug"),
        ])
        .await;
        harness.forgejo.set_lifetimes(TOKEN, Duration::from_secs(24 * 3600));
        harness.forgejo.set_advertised_lifetime(plan.token);
        Self {
            harness,
            run: Arc::default(),
            plan,
            kills: Vec::new(),
            stops: Vec::new(),
            struck: HashMap::new(),
            ledger: Ledger::default(),
            clients: JoinSet::new(),
        }
    }

    /// Signs a user in and has so many raw sessions of theirs make calls from now on.
    pub(crate) async fn load(&mut self, login: &'static str, sessions: usize) {
        let first = self.harness.signed_in(login).await;
        for number in 0..sessions {
            let client = first.another_session().without_keep_alive();
            open_session(&client).await;
            let run = Arc::clone(&self.run);
            let dice = Dice::new(self.plan.seed + self.clients.len() as u64 + 1);
            let session = RawSession::new(run, client, login, number, dice);
            self.clients.spawn(session.live());
        }
    }

    /// Has another client take part until the run is over.
    pub(crate) fn join(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.clients.spawn(client);
    }

    /// Lets the clients come to their end, stops the broker, and judges.
    pub(crate) async fn end(mut self) {
        self.run.over.cancel();
        let ending = timeout(LAST_CALLS, async {
            while let Some(ended) = self.clients.join_next().await {
                if let Err(panic) = ended {
                    self.run.trouble(format!("a client broke off: {panic}"));
                }
            }
        });
        if ending.await.is_err() {
            let left = self.clients.len();
            self.run.trouble(format!("{left} clients do not come to their end"));
        }
        self.stop().await;
        self.ledger.read(self.harness.broker.log());

        let notes = self.run.notes();
        let oracle = Oracle::new(&self.ledger, &self.kills, &self.stops, &notes.calls, &notes.heard);
        let rate = self.ledger.moves_a_second();
        let (kills, streams) = (self.kills.len(), notes.streams);
        println!("{oracle}, {kills} kills, {streams} streams; {rate}");
        let told = format!("CHAOS_SEED={}", self.plan.seed);
        assert!(notes.troubles.is_empty(), "{told}: {:#?}", notes.troubles);
        assert!(oracle.faults.is_empty(), "{told}: {}", oracle.report(&self.ledger));
        assert!(oracle.lost <= RESTARTS as usize, "{told}: {oracle}");
        assert!(
            kills > 10 && oracle.answered > 500 && rate.revivals > SESSIONS,
            "{told}: too little has happened"
        );
        assert!(rate.moves > SESSIONS / 2, "{told}: sessions are not moved: {rate}");
        // Where there is no time for calls there is none for the start of children: they come late, and sessions wake instead of
        // moving.
        if oracle.median < PROMPT {
            let due = self.plan.token / 2;
            assert!(
                rate.median < due.mul_f64(LATE),
                "{told}: sessions are not moved when it is time: {rate}"
            );
            assert!(
                rate.per_second() * due.as_secs_f64() > MOVES_WHEN_DUE,
                "{told}: sessions are not moved often enough: {rate}"
            );
        }
    }
}

impl Run {
    /// A call is over.
    pub(crate) fn note(&self, call: Call) {
        self.notes().calls.push(call);
    }

    /// Something went wrong that is no failed call.
    pub(crate) fn trouble(&self, trouble: String) {
        self.notes().troubles.push(trouble);
    }

    /// A child has said something beside its answers.
    pub(crate) fn heard(&self, heard: Heard) {
        {
            let mut notes = self.notes();
            notes.heard_marks.insert(heard.mark().to_owned());
            notes.heard.push(heard);
        }
        self.news.notify_waiters();
    }

    /// Waits until the announcement of a call has come.
    async fn until_heard(&self, mark: &str) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // Listening before looking: what happens in between is not missed.
            news.as_mut().enable();
            if self.notes().heard_marks.contains(mark) {
                return;
            }
            news.await;
        }
    }

    fn stream_opened(&self) {
        self.notes().streams += 1;
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length.max(1) as u64)).unwrap()
    }
}
