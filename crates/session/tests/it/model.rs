//! The registry against a reference model, under random schedules.
//!
//! A schedule interleaves opening, use, deletion, death, idleness, revocation and shutdown in an order drawn from a seed,
//! with spawns, exchanges and stops held open across other steps. After each step the answer and the counts have to be
//! those of the model, and the backends that run have to be those of the sessions that hold a slot.

use std::{sync::Arc, time::Duration};

use http::Method;
use session::{Config, Registry, Stats, ports::UserId};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::fakes::{
    Outcome, RecordingBackend, ScriptedSpawner, caller, grant, post, registry, request, rpc, said, session_id, settle,
};

const SCHEDULES: u64 = 2000;
const STEPS: usize = 40;
const CALLERS: [&str; 5] = ["ann/x", "ann/y", "bob/x", "bob/y", "eve/x"];
const CAP: usize = 5;
const USER_CAP: usize = 2;
const TICK: Duration = Duration::from_secs(30);
/// In ticks.
const IDLE: u64 = 3;
const START: u64 = 2;

type Answer = JoinHandle<(u16, Option<String>)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Opening { since: u64 },
    Live { last: u64 },
    Ended,
}

/// The model of a session, and the handles by which the schedule moves the real one.
struct Row {
    who: &'static str,
    tag: Arc<str>,
    state: State,
    id: Option<String>,
    opening: Option<Answer>,
    backend: Option<Arc<RecordingBackend>>,
    slow: Vec<Answer>,
}

struct Run {
    reg: Arc<Registry>,
    spawner: Arc<ScriptedSpawner>,
    tasks: TaskTracker,
    rows: Vec<Row>,
    now: u64,
    stopped: bool,
    dice: Dice,
}

/// A small generator (SplitMix64), so that a seed names a schedule for ever.
pub(crate) struct Dice(pub(crate) u64);

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
        let spawner = ScriptedSpawner::gated();
        let config = Config {
            max_sessions: CAP,
            max_sessions_per_user: USER_CAP,
            idle_timeout: TICK * IDLE as u32,
            reap_interval: TICK,
            // Between two ticks, so that it never coincides with one.
            start_timeout: TICK * START as u32 - TICK / 2,
            ..Config::default()
        };
        Self {
            reg: registry(&spawner, config),
            spawner,
            tasks: TaskTracker::new(),
            rows: Vec::new(),
            now: 0,
            stopped: false,
            dice: Dice(seed),
        }
    }

    async fn play(mut self) {
        settle().await;
        for _ in 0..STEPS {
            self.step().await;
            settle().await;
            self.check().await;
        }
        self.spawner.hold_stops.send_replace(false);
        self.reg.stop().await;
        settle().await;
        assert_eq!(self.reg.stats(), Stats::default());
        assert_eq!(self.spawner.running.now(), 0);
        assert!(self.spawner.running.most() <= CAP);
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn step(&mut self) {
        match self.dice.below(26) {
            0..=6 => self.initialize().await,
            7..=10 => self.decide().await,
            11 => self.abandon(),
            12..=14 => self.ask().await,
            15 => self.ask_slowly(),
            16 => self.answer_slow().await,
            17..=18 => self.delete().await,
            19 => self.die(),
            20..=22 => self.tick().await,
            23 => self.revoke(),
            24 => {
                let held = self.dice.below(2) == 0;
                self.spawner.hold_stops.send_replace(held);
            }
            _ => {
                if self.dice.below(6) == 0 {
                    self.stop();
                }
            }
        }
    }

    /// A backend that has not gone, or a spawn under way, holds a slot.
    fn slots(&self, user: Option<&str>) -> usize {
        self.rows
            .iter()
            .filter(|row| user.is_none_or(|user| row.who.starts_with(user)))
            .filter(|row| {
                matches!(row.state, State::Opening { .. }) || row.backend.as_ref().is_some_and(|b| !b.is_gone())
            })
            .count()
    }

    async fn initialize(&mut self) {
        let who = self.dice.pick(&CALLERS);
        let user = who.split('/').next();
        let (mine, all) = (self.slots(user), self.slots(None));
        let before = self.spawner.orders();
        let opening = self.send(who, None, "initialize");
        settle().await;
        if self.stopped || mine >= USER_CAP || all >= CAP {
            let expected = if !self.stopped && mine >= USER_CAP { 429 } else { 503 };
            assert_eq!(opening.await.expect("no panic"), (expected, None));
            assert_eq!(self.spawner.orders(), before, "nothing is spawned beyond a cap");
            return;
        }
        assert_eq!(self.spawner.orders(), before + 1);
        self.rows.push(Row {
            who,
            tag: self.spawner.last_tag(),
            state: State::Opening { since: self.now },
            id: None,
            opening: Some(opening),
            backend: None,
            slow: Vec::new(),
        });
    }

    /// Lets one of the spawns come out.
    async fn decide(&mut self) {
        let Some(index) = self.choose(|row| matches!(row.state, State::Opening { .. })) else {
            return;
        };
        let outcome = self.dice.pick(&[
            Outcome::Good,
            Outcome::Good,
            Outcome::Good,
            Outcome::Good,
            Outcome::RefusesInitialize,
            Outcome::Failed,
            Outcome::Unavailable,
            Outcome::Credentials,
        ]);
        let row = &mut self.rows[index];
        assert!(
            self.spawner.decide(&row.tag, outcome),
            "the registry waits for the spawn"
        );
        let (status, id) = row.opening.take().expect("an opening").await.expect("no panic");
        let good = outcome == Outcome::Good;
        let expected = match outcome {
            Outcome::Credentials => 401,
            Outcome::Unavailable => 503,
            Outcome::Failed | Outcome::NotReady | Outcome::DiesAtInitialize => 502,
            Outcome::Good
            | Outcome::RefusesInitialize
            | Outcome::StreamsInitialize
            | Outcome::StreamsInitializeLate
            | Outcome::SilentInitialize => 200,
        };
        assert_eq!((status, id.is_some()), (expected, good));
        if matches!(outcome, Outcome::Good | Outcome::RefusesInitialize) {
            row.backend = Some(self.spawner.backend(&row.tag));
        }
        row.id = id;
        row.state = if good {
            State::Live { last: self.now }
        } else {
            State::Ended
        };
    }

    /// A client goes away while its backend starts.
    fn abandon(&mut self) {
        if let Some(index) = self.choose(|row| matches!(row.state, State::Opening { .. })) {
            let row = &mut self.rows[index];
            row.opening.take().expect("an opening").abort();
            row.state = State::Ended;
        }
    }

    async fn ask(&mut self) {
        let Some(index) = self.choose(|row| row.id.is_some()) else {
            return;
        };
        let who = self.dice.pick(&CALLERS);
        let expected = self.expected(index, who);
        let row = &mut self.rows[index];
        let get = self.dice.below(4) == 0;
        let status = if get {
            let asked = request(Method::GET, who, row.id.as_deref(), "");
            self.reg.serve(asked).await.status().as_u16()
        } else {
            said(&self.reg, who, row.id.as_deref(), &rpc("3", "ping")).await.0
        };
        assert_eq!(status, expected.unwrap_or(200));
        if expected.is_none() {
            row.state = State::Live { last: self.now };
        }
    }

    fn ask_slowly(&mut self) {
        if let Some(index) = self.choose(|row| matches!(row.state, State::Live { .. })) {
            if self.stopped {
                return;
            }
            let id = self.rows[index].id.clone();
            let asked = self.send(self.rows[index].who, id, "slow");
            let row = &mut self.rows[index];
            row.slow.push(asked);
            row.state = State::Live { last: self.now };
        }
    }

    async fn answer_slow(&mut self) {
        let Some(index) = self.choose(|row| !row.slow.is_empty() && row.state != State::Ended) else {
            return;
        };
        let now = self.now;
        let row = &mut self.rows[index];
        assert!(row.backend.as_ref().expect("a backend").answer_slow());
        assert_eq!(row.slow.remove(0).await.expect("no panic"), (200, None));
        row.state = State::Live { last: now };
    }

    async fn delete(&mut self) {
        let Some(index) = self.choose(|row| row.id.is_some()) else {
            return;
        };
        let who = self.dice.pick(&CALLERS);
        let expected = self.expected(index, who);
        let row = &mut self.rows[index];
        let asked = request(Method::DELETE, who, row.id.as_deref(), "");
        assert_eq!(self.reg.serve(asked).await.status().as_u16(), expected.unwrap_or(204));
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
            settle().await;
        }
        self.now += 1;
        for row in &mut self.rows {
            row.state = match row.state {
                State::Live { last } if row.slow.is_empty() && self.now - last >= IDLE => State::Ended,
                State::Opening { since } if self.now - since >= START => {
                    let late = row.opening.take().expect("an opening");
                    assert_eq!(late.await.expect("no panic"), (502, None));
                    State::Ended
                }
                state @ (State::Opening { .. } | State::Live { .. } | State::Ended) => state,
            };
        }
    }

    fn revoke(&mut self) {
        let who = self.dice.pick(&CALLERS);
        let user = caller(who).user.clone();
        let whole_user = self.dice.below(2) == 0;
        if whole_user {
            drop(self.reg.end_user(&UserId(Arc::clone(&user.0))));
        } else {
            drop(self.reg.end_grant(&grant(who)));
        }
        for row in &mut self.rows {
            if row.who == who || (whole_user && caller(row.who).user == user) {
                row.state = State::Ended;
            }
        }
    }

    fn stop(&mut self) {
        let reg = Arc::clone(&self.reg);
        self.tasks.spawn(async move { reg.stop().await });
        self.stopped = true;
        for row in &mut self.rows {
            row.state = State::Ended;
        }
    }

    /// What is said to a caller who may not use the session; `None` if it may.
    fn expected(&self, index: usize, who: &str) -> Option<u16> {
        let row = &self.rows[index];
        match row.state {
            _ if self.stopped => Some(503),
            State::Ended => Some(404),
            _ if row.who != who => Some(403),
            State::Opening { .. } | State::Live { .. } => None,
        }
    }

    async fn check(&mut self) {
        let stats = self.reg.stats();
        let count = |wanted: fn(&State) -> bool| self.rows.iter().filter(|r| wanted(&r.state)).count();
        let attached = count(|state| matches!(state, State::Live { .. }));
        let opening = count(|state| matches!(state, State::Opening { .. }));
        let stopping = self.slots(None) - attached - opening;
        assert_eq!(
            stats,
            Stats {
                attached,
                dormant: 0,
                opening,
                stopping
            }
        );
        let running = self
            .rows
            .iter()
            .filter_map(|r| r.backend.as_ref())
            .filter(|b| !b.is_gone());
        assert_eq!(
            self.spawner.running.now(),
            running.count(),
            "no backend without its session"
        );
        let held = *self.spawner.hold_stops.borrow();
        for row in &mut self.rows {
            let over = row.state == State::Ended;
            let gone = row.backend.as_ref().is_none_or(|backend| backend.is_gone());
            assert!(over || row.backend.is_none() || !gone, "a live session has its backend");
            assert!(!over || held || gone, "an ended session has none");
            if over && gone {
                // Nobody waits for what is gone.
                if let Some(opening) = row.opening.take() {
                    let (status, id) = opening.await.expect("no panic");
                    assert!(matches!(status, 401 | 502 | 503) && id.is_none());
                }
                for asked in row.slow.drain(..) {
                    assert_eq!(asked.await.expect("no panic"), (200, None));
                }
            }
        }
    }

    fn send(&self, who: &'static str, id: Option<String>, method: &'static str) -> Answer {
        let reg = Arc::clone(&self.reg);
        self.tasks.spawn(async move {
            let response = post(&reg, who, id.as_deref(), &rpc("7", method)).await;
            (response.status().as_u16(), session_id(&response))
        })
    }

    fn choose(&mut self, wanted: impl Fn(&Row) -> bool) -> Option<usize> {
        let fitting: Vec<usize> = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| wanted(row))
            .map(|(i, _)| i)
            .collect();
        (!fitting.is_empty()).then(|| self.dice.pick(&fitting))
    }
}

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
