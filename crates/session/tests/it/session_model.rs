//! Sessions that end with their backends, compared with a reference model under random schedules.
//!
//! A schedule interleaves opening, use, deletion, death, idleness, revocation and shutdown in a
//! random order that its seed reproduces, and holds spawns, requests and stops open across other
//! steps. After each step the answer and the counts are those of the model, and the running
//! backends are those of the sessions that count for a quota.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use http::Method;
use session::{
    Config, Stats,
    ports::{GrantId, UserId},
    testing::{ScriptedBackend, SpawnOutcome},
};

use crate::harness::{Harness, InBackground, in_background, pick, rpc, run_ready_tasks};

const SCHEDULES: u64 = 2000;
const STEPS: usize = 40;
const CALLERS: [&str; 5] = ["ann/x", "ann/y", "bob/x", "bob/y", "eve/x"];
const TOTAL_QUOTA: usize = 5;
const USER_QUOTA: usize = 2;
const TICK: Duration = Duration::from_secs(30);
const IDLE_TICKS: u64 = 3;
const START_TICKS: u64 = 2;

type Answer = InBackground<(u16, Option<String>)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Opening { since: u64 },
    Live { last: u64 },
    Ended,
}

/// The model of a session, and the handles that move the real one.
struct Row {
    who: &'static str,
    tag: Arc<str>,
    state: State,
    id: Option<String>,
    opening: Option<Answer>,
    backend: Option<Arc<ScriptedBackend>>,
    slow: Vec<Answer>,
}

struct Run {
    harness: Harness,
    rows: Vec<Row>,
    stop: Option<InBackground<()>>,
    now: u64,
    rng: Rng,
}

#[tokio::test(start_paused = true)]
async fn random_schedules_agree_with_the_model() {
    for seed in 0..SCHEDULES {
        // Shown when the test fails.
        println!("seed {seed}");
        Run::new(seed).play().await;
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let config = Config {
            max_sessions: TOTAL_QUOTA,
            max_sessions_per_user: USER_QUOTA,
            idle_timeout: TICK * IDLE_TICKS as u32,
            reap_interval: TICK,
            // Between two ticks, so that it never coincides with one.
            start_timeout: TICK * START_TICKS as u32 - TICK / 2,
            // Failed starts delay no others here.
            backoff: Duration::ZERO,
            ..Config::default()
        };
        Self {
            harness: Harness::plain_manual(config),
            rows: Vec::new(),
            stop: None,
            now: 0,
            rng: Rng::with_seed(seed),
        }
    }

    async fn play(mut self) {
        run_ready_tasks().await;
        for _ in 0..STEPS {
            self.step().await;
            run_ready_tasks().await;
            self.check().await;
        }
        self.harness.spawner.hold_stops(false);
        self.harness.registry.stop().await;
        run_ready_tasks().await;
        assert_eq!(self.harness.registry.stats(), Stats::default());
        assert_eq!(self.harness.spawner.running(), 0);
        assert!(self.harness.spawner.peak_running() <= TOTAL_QUOTA);
        // Every request was answered, and every stop has returned.
        for row in self.rows {
            for answer in row.opening.into_iter().chain(row.slow) {
                answer.output().await;
            }
        }
        if let Some(stop) = self.stop {
            stop.output().await;
        }
    }

    async fn step(&mut self) {
        match self.rng.u64(..26) {
            0..=6 => self.initialize().await,
            7..=10 => self.resolve().await,
            11 => self.abandon(),
            12..=14 => self.ping().await,
            15 => self.call_slow(),
            16 => self.answer_slow().await,
            17..=18 => self.delete().await,
            19 => self.die(),
            20..=22 => self.tick().await,
            23 => self.revoke(),
            24 => self.harness.spawner.hold_stops(self.rng.bool()),
            _ => {
                if self.rng.u64(..6) == 0 {
                    self.stop();
                }
            }
        }
    }

    /// Counts the sessions with a running backend or a pending spawn, which count for the quotas.
    fn counted(&self, user: Option<&str>) -> usize {
        self.rows
            .iter()
            .filter(|row| user.is_none_or(|user| row.who.starts_with(user)))
            .filter(|row| {
                matches!(row.state, State::Opening { .. }) || row.backend.as_ref().is_some_and(|b| !b.has_exited())
            })
            .count()
    }

    async fn initialize(&mut self) {
        let who = pick(&mut self.rng, &CALLERS);
        let (of_user, all) = (self.counted(Some(user_of(who))), self.counted(None));
        let before = self.harness.spawner.spawn_count();
        let opening = self.harness.status_in_background(who, None, "initialize");
        run_ready_tasks().await;
        let stopped = self.stop.is_some();
        if stopped || of_user >= USER_QUOTA || all >= TOTAL_QUOTA {
            let expected = if !stopped && of_user >= USER_QUOTA { 429 } else { 503 };
            assert_eq!(opening.output().await, (expected, None));
            assert_eq!(
                self.harness.spawner.spawn_count(),
                before,
                "nothing is spawned beyond a quota"
            );
            return;
        }
        assert_eq!(self.harness.spawner.spawn_count(), before + 1);
        self.rows.push(Row {
            who,
            tag: self.harness.spawner.last_order().tag,
            state: State::Opening { since: self.now },
            id: None,
            opening: Some(opening),
            backend: None,
            slow: Vec::new(),
        });
    }

    /// Resolves one of the spawns.
    async fn resolve(&mut self) {
        let Some(index) = self.choose(|row| matches!(row.state, State::Opening { .. })) else {
            return;
        };
        let (outcome, status) = pick(
            &mut self.rng,
            &[
                (SpawnOutcome::Ready, 200),
                (SpawnOutcome::Ready, 200),
                (SpawnOutcome::Ready, 200),
                (SpawnOutcome::Ready, 200),
                (SpawnOutcome::RefusesInitialize, 200),
                (SpawnOutcome::Failed, 502),
                (SpawnOutcome::Unavailable, 503),
                (SpawnOutcome::Credentials, 401),
            ],
        );
        let row = &mut self.rows[index];
        assert!(
            self.harness.spawner.resolve(&row.tag, outcome),
            "the registry waits for the spawn"
        );
        let (actual, id) = row.opening.take().expect("an opening").output().await;
        let opened = outcome == SpawnOutcome::Ready;
        assert_eq!((actual, id.is_some()), (status, opened));
        if status == 200 {
            row.backend = Some(self.harness.spawner.backend(&row.tag));
        }
        row.id = id;
        row.state = if opened {
            State::Live { last: self.now }
        } else {
            State::Ended
        };
    }

    /// A client disconnects while its backend starts.
    fn abandon(&mut self) {
        if let Some(index) = self.choose(|row| matches!(row.state, State::Opening { .. })) {
            let row = &mut self.rows[index];
            drop(row.opening.take().expect("an opening"));
            row.state = State::Ended;
        }
    }

    async fn ping(&mut self) {
        let Some(index) = self.choose(|row| row.id.is_some()) else {
            return;
        };
        let who = pick(&mut self.rng, &CALLERS);
        let expected = self.expected_error(index, who);
        let row = &mut self.rows[index];
        let (method, body) = match self.rng.u64(..4) {
            0 => (Method::GET, String::new()),
            _ => (Method::POST, rpc("3", "ping")),
        };
        let response = self.harness.send(method, who, row.id.as_deref(), &body).await;
        assert_eq!(response.status().as_u16(), expected.unwrap_or(200));
        if expected.is_none() {
            row.state = State::Live { last: self.now };
        }
    }

    fn call_slow(&mut self) {
        if self.stop.is_some() {
            return;
        }
        if let Some(index) = self.choose(|row| matches!(row.state, State::Live { .. })) {
            let row = &mut self.rows[index];
            let call = self.harness.status_in_background(row.who, row.id.as_deref(), "slow");
            row.slow.push(call);
            row.state = State::Live { last: self.now };
        }
    }

    async fn answer_slow(&mut self) {
        let Some(index) = self.choose(|row| !row.slow.is_empty() && row.state != State::Ended) else {
            return;
        };
        let row = &mut self.rows[index];
        assert!(row.backend.as_ref().expect("a backend").answer_slow());
        assert_eq!(row.slow.remove(0).output().await, (200, None));
        row.state = State::Live { last: self.now };
    }

    async fn delete(&mut self) {
        let Some(index) = self.choose(|row| row.id.is_some()) else {
            return;
        };
        let who = pick(&mut self.rng, &CALLERS);
        let expected = self.expected_error(index, who);
        let row = &mut self.rows[index];
        let status = self.harness.delete(who, row.id.as_deref().expect("an id")).await;
        assert_eq!(status.as_u16(), expected.unwrap_or(204));
        if expected.is_none() {
            row.state = State::Ended;
        }
    }

    fn die(&mut self) {
        if let Some(index) = self.choose(|row| row.backend.is_some()) {
            let row = &mut self.rows[index];
            row.backend.as_ref().expect("a backend").die();
            row.state = State::Ended;
        }
    }

    async fn tick(&mut self) {
        // In two halves, since a start times out between two ticks.
        for _ in 0..2 {
            tokio::time::advance(TICK / 2).await;
            run_ready_tasks().await;
        }
        self.now += 1;
        for row in &mut self.rows {
            row.state = match row.state {
                State::Live { last } if row.slow.is_empty() && self.now - last >= IDLE_TICKS => State::Ended,
                State::Opening { since } if self.now - since >= START_TICKS => {
                    let late = row.opening.take().expect("an opening");
                    assert_eq!(late.output().await, (502, None));
                    State::Ended
                }
                state @ (State::Opening { .. } | State::Live { .. } | State::Ended) => state,
            };
        }
    }

    fn revoke(&mut self) {
        let who = pick(&mut self.rng, &CALLERS);
        let whole_user = self.rng.bool();
        if whole_user {
            drop(self.harness.registry.end_user(&UserId(user_of(who).into())));
        } else {
            drop(self.harness.registry.end_grant(&GrantId(who.into())));
        }
        for row in &mut self.rows {
            if row.who == who || (whole_user && user_of(row.who) == user_of(who)) {
                row.state = State::Ended;
            }
        }
    }

    fn stop(&mut self) {
        let registry = Arc::clone(&self.harness.registry);
        self.stop = Some(in_background(async move { registry.stop().await }));
        for row in &mut self.rows {
            row.state = State::Ended;
        }
    }

    /// The error status for a caller that may not use the session; `None` if it may.
    fn expected_error(&self, index: usize, who: &str) -> Option<u16> {
        let row = &self.rows[index];
        match row.state {
            _ if self.stop.is_some() => Some(503),
            State::Ended => Some(404),
            _ if row.who != who => Some(403),
            State::Opening { .. } | State::Live { .. } => None,
        }
    }

    async fn check(&mut self) {
        let count = |wanted: fn(&State) -> bool| self.rows.iter().filter(|row| wanted(&row.state)).count();
        let attached = count(|state| matches!(state, State::Live { .. }));
        let opening = count(|state| matches!(state, State::Opening { .. }));
        assert_eq!(
            self.harness.registry.stats(),
            Stats {
                attached,
                dormant: 0,
                opening,
                stopping: self.counted(None) - attached - opening,
            }
        );
        let running = self
            .rows
            .iter()
            .filter_map(|row| row.backend.as_ref())
            .filter(|backend| !backend.has_exited());
        assert_eq!(
            self.harness.spawner.running(),
            running.count(),
            "no backend without its session"
        );
        let stops_held = self.harness.spawner.holds_stops();
        for row in &mut self.rows {
            let ended = row.state == State::Ended;
            let exited = row.backend.as_ref().is_none_or(|backend| backend.has_exited());
            assert!(
                ended || row.backend.is_none() || !exited,
                "a live session has its backend"
            );
            assert!(!ended || stops_held || exited, "an ended session has no backend");
            if ended && exited {
                // Every pending request is answered.
                if let Some(opening) = row.opening.take() {
                    let (status, id) = opening.output().await;
                    assert!(matches!(status, 401 | 502 | 503) && id.is_none());
                }
                for call in row.slow.drain(..) {
                    assert_eq!(call.output().await, (200, None));
                }
            }
        }
    }

    fn choose(&mut self, wanted: impl Fn(&Row) -> bool) -> Option<usize> {
        let matching: Vec<usize> = (0..self.rows.len())
            .filter(|index| wanted(&self.rows[*index]))
            .collect();
        (!matching.is_empty()).then(|| pick(&mut self.rng, &matching))
    }
}

/// The user of a caller.
fn user_of(who: &str) -> &str {
    who.split('/').next().unwrap_or(who)
}
