//! A load test with faults: clients call without pause while credentials are renewed every second,
//! children are killed, sessions become idle, and the broker restarts.
//!
//! Only requests in flight on a killed child may fail, and questions that are open when the broker
//! stops. Each answer belongs to its session, each answer to a question reaches the child that has
//! asked it, each call runs once, no session is lost, and in the end no child is left. The short
//! form runs with all tests:
//!
//! | variable | short form | meaning |
//! |---|---|---|
//! | `CHAOS_SECONDS` | 24 | the duration of the run |
//! | `CHAOS_TOKEN_SECONDS` | 2 | the advertised lifetime of a Forgejo token; at half of it each session moves to a new child |
//! | `CHAOS_SEED` | from the clock | the seed for the times of kills and the pauses of clients; a failure prints it |
//!
//! `load` has the clients, and `questions` those of their calls in which a child asks the user.
//! `faults` injects the faults. `ledger` reads from the broker's log which
//! child took which call, since each call writes a line to the standard error of its child. With it
//! `oracle` checks the calls.

mod event_streams;
mod faults;
mod ledger;
mod load;
pub(crate) mod oracle;
mod questions;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fastrand::Rng;
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use self::{
    faults::{BrokerStop, Kill},
    ledger::{Ledger, Tag},
    load::RawSession,
    oracle::{Call, Oracle, ServerNotification},
};
use crate::{
    harness::{Harness, open_session},
    randomized::{env_number, env_seed},
};

/// The number of sessions of a run, over all kinds of clients.
pub(crate) const SESSIONS: usize = 32;
/// The default duration of a run in seconds.
pub(crate) const SHORT_RUN: u64 = 24;
const RESTARTS: u32 = 5;
/// A run with less proves nothing.
const MIN_KILLS: usize = 10;
const MIN_ANSWERS: usize = 500;
const MIN_QUESTIONS: usize = 50;
const MIN_REVIVALS: usize = SESSIONS;
const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The real lifetime of a Forgejo token. It is longer than advertised: Forgejo cuts off fractions
/// of seconds, and a late renewal on a slow machine is not a fault of the broker.
const TOKEN_LIFETIME: Duration = Duration::from_secs(30);
/// The longest time that clients need to finish.
const FINISH_TIMEOUT: Duration = Duration::from_secs(180);
/// The median age of a replaced child, at most, as a multiple of the planned age. Some children
/// start slowly.
const MAX_AGE_FACTOR: f64 = 1.6;
/// The rotations of a session within the planned age, at least, on a machine that is fast enough.
const MIN_ROTATIONS_WHEN_DUE: f64 = 0.6;
/// On a machine that is fast enough, half of the calls are answered within this time, which
/// includes the delay of the tool.
const FAST_MEDIAN: Duration = Duration::from_millis(25);

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    seed: u64,
    duration: Duration,
    advertised_lifetime: Duration,
}

/// A run: a broker, its clients, and the injected faults.
#[derive(Debug)]
pub(crate) struct Chaos {
    pub(crate) harness: Harness,
    pub(crate) reports: Arc<Reports>,
    plan: Plan,
    kills: Vec<Kill>,
    stops: Vec<BrokerStop>,
    /// For each session, the number of its proven children at the last kill.
    proven_at_kill: HashMap<Tag, usize>,
    ledger: Ledger,
    /// The clients. Each closes its sessions and ends after the cancellation of
    /// [`Reports::finish`].
    clients: JoinSet<()>,
}

/// The reports of the clients.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Cancelled when the clients must finish.
    pub(crate) finish: CancellationToken,
    entries: Mutex<Entries>,
    /// Signalled after each notification of a server.
    notified: Notify,
}

/// Entries are only added, so the content of a poisoned lock is consistent.
#[derive(Debug, Default)]
struct Entries {
    calls: Vec<Call>,
    notifications: Vec<ServerNotification>,
    notified_marks: HashSet<String>,
    problems: Vec<String>,
    streams: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_crashes_idleness_and_restarts_are_invisible_to_clients() {
    let mut chaos = Chaos::start(Plan::from_environment()).await;
    chaos.add_raw_sessions(SESSIONS).await;
    chaos.inject_faults().await;
    chaos.finish().await;
}

/// The time since the Unix epoch. The log and the clients in other languages use the same clock.
pub(crate) fn now() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}

impl Plan {
    pub(crate) fn from_environment() -> Self {
        Self {
            seed: env_seed("CHAOS_SEED"),
            duration: Duration::from_secs(env_number("CHAOS_SECONDS", SHORT_RUN)),
            advertised_lifetime: Duration::from_secs(env_number("CHAOS_TOKEN_SECONDS", 2)),
        }
    }
}

impl Chaos {
    /// Starts a broker and a Forgejo with short-lived tokens.
    pub(crate) async fn start(plan: Plan) -> Self {
        let idle_timeout = format!("{}s", IDLE_TIMEOUT.as_secs());
        let harness = Harness::with_persistent_socket(&[
            ("session.idle_timeout", &idle_timeout),
            ("session.reap_interval", "200ms"),
            ("session.rotate_interval", "50ms"),
            ("session.max_sessions_per_user", "64"),
            ("child.stop_grace", "2s"),
            // A call with an open question holds a stop up: its answer would need a new connection.
            ("server.drain_timeout", &format!("{}s", DRAIN_TIMEOUT.as_secs())),
            // Each call writes a line.
            ("child.stderr_lines_per_second", "1000"),
            ("log.filter", "info,supervisor=debug"),
        ])
        .await;
        harness
            .forgejo
            .set_lifetimes(TOKEN_LIFETIME, Duration::from_secs(24 * 3600));
        harness.forgejo.set_advertised_lifetime(plan.advertised_lifetime);
        Self {
            harness,
            reports: Arc::default(),
            plan,
            kills: Vec::new(),
            stops: Vec::new(),
            proven_at_kill: HashMap::new(),
            ledger: Ledger::default(),
            clients: JoinSet::new(),
        }
    }

    /// Signs two users in and starts this number of raw sessions, half of them for each user.
    pub(crate) async fn add_raw_sessions(&mut self, sessions: usize) {
        for login in ["alice", "bob"] {
            let signed_in = self.harness.signed_in(login).await;
            for number in 0..sessions / 2 {
                let client = signed_in.another_session().without_keep_alive();
                open_session(&client).await;
                let reports = Arc::clone(&self.reports);
                let rng = Rng::with_seed(self.plan.seed.wrapping_add(self.clients.len() as u64 + 1));
                let session = RawSession::new(reports, client, login, number, rng);
                self.clients.spawn(session.run());
            }
        }
    }

    /// Adds a client that runs until [`Reports::finish`].
    pub(crate) fn add_client(&mut self, client: impl Future<Output = ()> + Send + 'static) {
        self.clients.spawn(client);
    }

    /// Waits for the clients to finish, stops the broker, and checks all reports.
    pub(crate) async fn finish(mut self) {
        self.reports.finish.cancel();
        let finished = timeout(FINISH_TIMEOUT, async {
            while let Some(ended) = self.clients.join_next().await {
                if let Err(panic) = ended {
                    self.reports.add_problem(format!("a client panicked: {panic}"));
                }
            }
        });
        if finished.await.is_err() {
            let left = self.clients.len();
            self.reports.add_problem(format!("{left} clients do not finish"));
        }
        self.stop_broker().await;
        self.ledger.read(self.harness.broker.log());

        let entries = self.reports.entries();
        let (calls, notifications) = (&entries.calls, &entries.notifications);
        let oracle = Oracle::check(&self.ledger, &self.kills, &self.stops, calls, notifications);
        let stats = self.ledger.rotation_stats();
        let (kills, streams) = (self.kills.len(), entries.streams);
        println!("{oracle}, {kills} kills, {streams} streams; {stats}");
        let seed = format!("CHAOS_SEED={}", self.plan.seed);
        assert!(entries.problems.is_empty(), "{seed}: {:#?}", entries.problems);
        assert!(oracle.violations.is_empty(), "{seed}: {}", oracle.report(&self.ledger));
        assert!(oracle.lost <= RESTARTS as usize, "{seed}: {oracle}");
        assert!(
            kills > MIN_KILLS
                && oracle.answered > MIN_ANSWERS
                && oracle.questions > MIN_QUESTIONS
                && stats.revivals > MIN_REVIVALS,
            "{seed}: too few kills, answers, questions or revivals"
        );
        assert!(
            stats.rotations > SESSIONS / 2,
            "{seed}: sessions are not rotated: {stats}"
        );
        // On a machine that is too slow for the calls, children start late too, and sessions are
        // revived instead of rotated.
        if oracle.median < FAST_MEDIAN {
            let planned_age = self.plan.advertised_lifetime / 2;
            assert!(
                stats.median_age < planned_age.mul_f64(MAX_AGE_FACTOR),
                "{seed}: sessions are rotated too late: {stats}"
            );
            assert!(
                stats.per_second() * planned_age.as_secs_f64() > MIN_ROTATIONS_WHEN_DUE,
                "{seed}: sessions are not rotated often enough: {stats}"
            );
        }
    }
}

impl Reports {
    /// Adds a call that has ended.
    pub(crate) fn add_call(&self, call: Call) {
        self.entries().calls.push(call);
    }

    /// Adds a problem other than a failed call. Each fails the run.
    pub(crate) fn add_problem(&self, problem: String) {
        self.entries().problems.push(problem);
    }

    /// Adds a notification that a client has received.
    pub(crate) fn add_notification(&self, notification: ServerNotification) {
        {
            let mut entries = self.entries();
            entries.notified_marks.insert(notification.mark().to_owned());
            entries.notifications.push(notification);
        }
        self.notified.notify_waiters();
    }

    /// Waits until a notification with this mark has been received.
    async fn notification_of(&self, mark: &str) {
        loop {
            let notified = self.notified.notified();
            tokio::pin!(notified);
            // Enabled before the check, so that a notification between the check and the wait is
            // not missed.
            notified.as_mut().enable();
            if self.entries().notified_marks.contains(mark) {
                return;
            }
            notified.await;
        }
    }

    fn add_stream(&self) {
        self.entries().streams += 1;
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
