//! Sessions that outlive their backends, compared with a reference model under random schedules.
//!
//! The model states what a client relies on: a session lasts until it is deleted, revoked, evicted
//! at a quota or unused for too long. It survives everything else: backends that die, idle, start
//! slowly or not at all, credentials that cannot be renewed, rotations, restarts of the registry. A
//! seed reproduces its schedule. After each step no request waits without a spawn, no session has
//! two backends, and no answer reports the end of a session that has not ended.
//!
//! An implicit session also ends when its grant needs its place for another one, and the next call
//! makes it again. The client is never told of its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fastrand::Rng;
use http::{Method, Request};
use session::{
    Config,
    ports::{Backend as _, Event, GrantId, UserId},
    testing::{RefreshOutcome, ScriptedBackend, SpawnOutcome},
};
use tokio::time::{Instant, advance, sleep_until};

use crate::harness::{Harness, InBackground, pick, rpc, run_ready_tasks};

const SCHEDULES: u64 = 8000;
const STEPS: usize = 30;
/// The names of implicit sessions, of which a grant keeps one that is not in use.
const NAMES: [&str; 2] = ["a", "b"];
const CALLERS: [&str; 4] = ["ann/x", "ann/y", "bob/x", "eve/x"];
const TOTAL_QUOTA: usize = 4;
const USER_QUOTA: usize = 2;
const TICK: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(90);
const RETAIN: Duration = Duration::from_secs(300);

type Answer = InBackground<(u16, Option<String>)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Opening,
    Live { last: Instant },
    Ended,
}

/// The model of a session.
struct Row {
    who: &'static str,
    tag: Arc<str>,
    /// `None` for an implicit session.
    id: Option<String>,
    /// The name of an implicit session.
    name: Option<&'static str>,
    /// The backends of the sessions before with the same name.
    predecessors: Vec<Arc<ScriptedBackend>>,
    /// The backends that it had when it was made again: a row of its own stands for that.
    left: Option<Vec<Arc<ScriptedBackend>>>,
    state: State,
    opening: Option<Answer>,
    pings: Vec<Answer>,
    /// The start of the first of the pings that wait, or else of the last one.
    waiting_since: Instant,
    /// The start of the latest ping.
    pinged: Instant,
    /// The backend that served the session after the last step.
    served_by: Option<Arc<ScriptedBackend>>,
    /// A backend that was replaced and is being stopped: it counts for the quotas by itself.
    replaced: Option<Arc<ScriptedBackend>>,
}

struct Run {
    harness: Harness,
    rows: Vec<Row>,
    /// The session of the last `initialize` of each grant, unless two were opened in one step.
    last_opened: BTreeMap<&'static str, Option<usize>>,
    next_reap: Instant,
    rng: Rng,
}

#[tokio::test(start_paused = true)]
async fn random_schedules_lose_no_session_even_seeds() {
    play_every_second(0).await;
}

#[tokio::test(start_paused = true)]
async fn random_schedules_lose_no_session_odd_seeds() {
    play_every_second(1).await;
}

#[expect(
    clippy::print_stdout,
    reason = "shown when the test fails: the seed reproduces the schedule"
)]
async fn play_every_second(first: u64) {
    for seed in (first..SCHEDULES).step_by(2) {
        println!("seed {seed}");
        Run::new(seed).await.play().await;
    }
}

impl Run {
    async fn new(seed: u64) -> Self {
        let config = Config {
            max_sessions: TOTAL_QUOTA,
            max_sessions_per_user: USER_QUOTA,
            max_implicit_sessions_per_grant: 1,
            idle_timeout: IDLE,
            reap_interval: TICK,
            retain: RETAIN,
            start_timeout: TICK * 3 / 2,
            ..Config::default()
        };
        Self {
            harness: Harness::manual(config).await,
            rows: Vec::new(),
            last_opened: BTreeMap::new(),
            next_reap: Instant::now() + TICK,
            rng: Rng::with_seed(seed),
        }
    }

    async fn play(mut self) {
        run_ready_tasks().await;
        for _ in 0..STEPS {
            // Each step has its own time, so the model knows which session is the oldest.
            advance(Duration::from_millis(1)).await;
            self.step().await;
            run_ready_tasks().await;
            self.note_rotations();
            self.collect_answers();
            self.check();
        }
        self.revive_all().await;
        self.harness.registry.stop().await;
        assert_eq!(self.harness.spawner.running(), 0);
        // Every request was answered.
        for row in self.rows {
            for answer in row.opening.into_iter().chain(row.pings) {
                answer.output().await;
            }
        }
    }

    async fn step(&mut self) {
        match self.rng.u64(..36) {
            0..=4 => self.initialize().await,
            5..=11 => self.resolve(),
            12..=16 => self.ping(),
            17 => self.delete().await,
            18..=19 => self.die(),
            20..=22 => self.tick().await,
            23 => self.revoke(),
            24..=26 => self.rotate(),
            27 => self.harness.spawner.hold_stops(self.rng.bool()),
            28 => self.revoke_upstream().await,
            29..=33 => self.call().await,
            34 => self.call_last().await,
            _ => {
                if self.rng.u64(..3) == 0 {
                    self.restart().await;
                }
            }
        }
    }

    async fn initialize(&mut self) {
        let who = pick(&mut self.rng, &CALLERS);
        let request = self.harness.request(Method::POST, who, None, &rpc("7", "initialize"));
        let Some(opening) = self.open(request, |run| run.admit(who)).await else {
            return;
        };
        self.rows.push(Row {
            who,
            tag: self.harness.spawner.last_order().tag,
            state: State::Opening,
            opening: Some(opening),
            ..Row::new(who)
        });
    }

    /// A call of an implicit session, which makes it if need be.
    async fn call(&mut self) {
        let (who, name) = (pick(&mut self.rng, &CALLERS), pick(&mut self.rng, &NAMES));
        let live = |row: &Row| row.who == who && row.name.is_some() && matches!(row.state, State::Live { .. });
        let held: Vec<usize> = (0..self.rows.len()).filter(|index| live(&self.rows[*index])).collect();
        if let Some(index) = held.iter().find(|index| self.rows[**index].name == Some(name)) {
            return self.ping_session(*index);
        }
        let running = self.harness.spawner.running_backends();
        let request = self.harness.routed(Method::POST, who, name, &rpc("7", "ping"));
        let admit = |run: &mut Self| {
            // Those that are in use stay.
            for index in held {
                if run.rows[index].pings.is_empty() {
                    run.end(index);
                }
            }
            run.admit(who)
        };
        let Some(call) = self.open(request, admit).await else {
            return;
        };
        let tag = self.harness.spawner.last_order().tag;
        let mut predecessors = running;
        predecessors.retain(|backend| backend.tag() == &*tag);
        for row in self.rows.iter_mut().filter(|row| row.tag == tag && row.left.is_none()) {
            let mut left = predecessors.clone();
            left.retain(|backend| !contains(&row.predecessors, backend));
            row.left = Some(left);
        }
        self.rows.push(Row {
            tag,
            name: Some(name),
            predecessors,
            state: State::Live { last: Instant::now() },
            pings: vec![call],
            ..Row::new(who)
        });
    }

    /// A call without a session id of a client that has initialized.
    async fn call_last(&mut self) {
        let who = pick(&mut self.rng, &CALLERS);
        let Some(Some(index)) = self.last_opened.get(who).copied() else {
            return;
        };
        // One that has to wait may lose its session, and make an implicit one.
        if matches!(self.rows[index].state, State::Live { .. }) && !self.serving(&self.rows[index]).is_empty() {
            let call = self.harness.status_of_routed(who, "last");
            assert_eq!(call.output().await, (200, None));
            self.rows[index].state = State::Live { last: Instant::now() };
        }
    }

    /// A request that makes a session and spawns its backend, unless it is refused. `admit` says so
    /// for the model, and ends the sessions whose place it needs.
    async fn open(&mut self, request: Request<Bytes>, admit: impl FnOnce(&mut Self) -> bool) -> Option<Answer> {
        let before: Vec<State> = self.rows.iter().map(|row| row.state).collect();
        let admitted = admit(self);
        let (spawns, backed_off) = (
            self.harness.spawner.spawn_count(),
            self.harness.event_count(Event::BackedOff),
        );
        let answer = self.harness.status_of(request);
        run_ready_tasks().await;
        if self.harness.spawner.spawn_count() > spawns {
            assert!(admitted, "a session beyond a quota");
            return Some(answer);
        }
        assert!(matches!(answer.output().await, (429 | 503, None)));
        if self.harness.event_count(Event::BackedOff) > backed_off {
            // Before any session is ended for the new one.
            for (row, state) in self.rows.iter_mut().zip(before) {
                row.state = state;
            }
        } else {
            assert!(!admitted, "the quotas are not exceeded");
        }
        None
    }

    /// Evicts sessions until there is a place. False if there is none.
    fn admit(&mut self, who: &str) -> bool {
        let of_user = |row: &Row| user(row.who) == user(who);
        loop {
            let only_of_user = self.counted(of_user) >= USER_QUOTA;
            if !only_of_user && self.counted(|_| true) < TOTAL_QUOTA {
                return true;
            }
            let dormant = self.rows.iter().enumerate().filter_map(|(index, row)| {
                let State::Live { last } = row.state else { return None };
                let unused = self.backends(row) == 0 && row.pings.is_empty();
                // Of those that timed out since the last step, the first has waited for longest.
                (unused && (!only_of_user || of_user(row))).then_some((last, row.waiting_since, index))
            });
            let Some((_, _, index)) = dormant.min() else {
                return false;
            };
            self.end(index);
        }
    }

    /// Counts the sessions and the replaced backends that count for the quotas.
    fn counted(&self, wanted: impl Fn(&Row) -> bool) -> usize {
        let counted = self.rows.iter().filter(|row| wanted(row)).map(|row| {
            let replaced = row.replaced.as_ref().filter(|backend| !backend.has_exited());
            let replaced = usize::from(replaced.is_some());
            usize::from(row.state != State::Ended || self.backends(row) > replaced) + replaced
        });
        counted.sum()
    }

    /// Notes which backends were replaced in the last step.
    fn note_rotations(&mut self) {
        for row in &mut self.rows {
            row.replaced.take_if(|backend| backend.has_exited());
            let serving = serving(&self.harness, row).pop();
            let before = std::mem::replace(&mut row.served_by, serving);
            // One that was detached for another reason is not followed within the step, or has
            // exited.
            let next = row.served_by.as_ref();
            if let Some(before) = before.filter(|before| !before.has_exited())
                && next.is_some_and(|next| !Arc::ptr_eq(next, &before))
            {
                assert!(row.replaced.is_none(), "a rotation waits for the end of the one before");
                row.replaced = Some(before);
            }
        }
    }

    /// The number of running backends of a session, those included that are being stopped.
    fn backends(&self, row: &Row) -> usize {
        running(&self.harness, row).len()
    }

    /// Those of them that were not told to stop.
    fn serving(&self, row: &Row) -> Vec<Arc<ScriptedBackend>> {
        serving(&self.harness, row)
    }

    fn spawns(&self, row: &Row) -> usize {
        let pending = self.harness.spawner.pending();
        let of_row = |tag: &Arc<str>| row.left.is_none() && *tag == row.tag;
        pending.iter().filter(|tag| of_row(tag)).count()
    }

    /// Resolves one of the spawns.
    fn resolve(&mut self) {
        let pending = self.harness.spawner.pending();
        if pending.is_empty() {
            return;
        }
        let tag = &pending[self.rng.usize(..pending.len())];
        let outcome = pick(
            &mut self.rng,
            &[
                SpawnOutcome::Ready,
                SpawnOutcome::Ready,
                SpawnOutcome::Ready,
                SpawnOutcome::Failed,
                SpawnOutcome::Unavailable,
            ],
        );
        self.harness.spawner.resolve(tag, outcome);
    }

    fn ping(&mut self) {
        if let Some(index) = self.choose(Row::can_be_called) {
            self.ping_session(index);
        }
    }

    fn ping_session(&mut self, index: usize) {
        let row = &mut self.rows[index];
        let ping = match row.name {
            Some(name) => self.harness.status_of_routed(row.who, name),
            None => self.harness.status_in_background(row.who, row.id.as_deref(), "ping"),
        };
        row.pinged = Instant::now();
        if row.pings.is_empty() {
            row.waiting_since = row.pinged;
        }
        row.pings.push(ping);
    }

    async fn delete(&mut self) {
        let Some(index) = self.choose(|row| row.id.is_some()) else {
            return;
        };
        let row = &self.rows[index];
        let status = self.harness.delete(row.who, row.id.as_deref().expect("an id")).await;
        let live = matches!(row.state, State::Live { .. });
        assert_eq!(status == 204, live, "{status}");
        self.end(index);
    }

    fn die(&mut self) {
        let running = self.harness.spawner.running_backends();
        if !running.is_empty() {
            running[self.rng.usize(..running.len())].die();
        }
    }

    async fn tick(&mut self) {
        let now = Instant::now();
        let half = (self.next_reap - now) / 2;
        for end in [now + half, self.next_reap] {
            // Not `advance`, after which all that has timed out would have the same activity.
            sleep_until(end).await;
            run_ready_tasks().await;
            // A slow start times out in between.
            self.collect_answers();
        }
        let now = Instant::now();
        self.next_reap = now + TICK;
        for index in 0..self.rows.len() {
            let row = &self.rows[index];
            if let State::Live { last } = row.state
                && row.pings.is_empty()
            {
                if now - last >= RETAIN {
                    self.end(index);
                } else if now - last >= IDLE {
                    assert!(self.serving(row).is_empty(), "an idle session has no backend");
                }
            }
        }
    }

    fn revoke(&mut self) {
        let who = pick(&mut self.rng, &CALLERS);
        let whole_user = self.rng.bool();
        if whole_user {
            drop(self.harness.registry.end_user(&user(who)));
        } else {
            drop(self.harness.registry.end_grant(&GrantId(who.into())));
        }
        self.end_where(|row| row.who == who || (whole_user && user(row.who) == user(who)));
    }

    /// Rotates the sessions of a user, after a new sign-in or with a credential whose refresh may
    /// fail for now.
    fn rotate(&mut self) {
        let user = user(pick(&mut self.rng, &CALLERS));
        let credentials = self.harness.credentials(&user.0);
        if self.rng.bool() {
            credentials.replace();
        }
        credentials.set_refresh_outcome(pick(
            &mut self.rng,
            &[
                RefreshOutcome::Renewed,
                RefreshOutcome::Renewed,
                RefreshOutcome::Transient,
            ],
        ));
        self.harness.registry.rotate_user(&user);
    }

    /// The user revokes the broker at the upstream. The next refresh of a rotation shows it.
    async fn revoke_upstream(&mut self) {
        let revoked = user(pick(&mut self.rng, &CALLERS));
        let credentials = self.harness.credentials(&revoked.0);
        // A session whose backend holds an older credential is rotated to the current one without a
        // refresh.
        let current = credentials.expires_at();
        let holds_current = |backend: &Arc<ScriptedBackend>| backend.expires_at() >= Some(current);
        let shows = self.rows.iter().any(|row| {
            user(row.who) == revoked && row.state != State::Ended && self.serving(row).iter().any(holds_current)
        });
        credentials.set_refresh_outcome(RefreshOutcome::Terminal);
        self.harness.registry.rotate_user(&revoked);
        run_ready_tasks().await;
        credentials.set_refresh_outcome(RefreshOutcome::Renewed);
        self.end_where(|row| shows && user(row.who) == revoked);
    }

    async fn restart(&mut self) {
        self.harness.spawner.hold_stops(false);
        let interrupted: Vec<bool> = self.rows.iter().map(|row| !row.pings.is_empty()).collect();
        self.harness.registry.stop().await;
        run_ready_tasks().await;
        self.collect_answers();
        for (row, interrupted) in self.rows.iter_mut().zip(interrupted) {
            if let State::Live { last } = &mut row.state
                && interrupted
            {
                // A request that the stop interrupts is recorded with its start.
                *last = row.pinged;
            }
            assert!(
                row.state != State::Opening && row.pings.is_empty(),
                "every request is answered"
            );
        }
        assert_eq!(self.harness.spawner.running(), 0);
        self.harness.restart().await;
        self.next_reap = Instant::now() + TICK;
    }

    /// Removes every obstacle, and checks that each session is served that has not ended.
    async fn revive_all(&mut self) {
        self.harness.spawner.hold_stops(false);
        for user in ["ann", "bob", "eve"] {
            let credentials = self.harness.credentials(user);
            credentials.set_refresh_outcome(RefreshOutcome::Renewed);
        }
        self.resolve_all().await;
        self.collect_answers();
        for index in 0..self.rows.len() {
            if !self.rows[index].can_be_called() {
                continue;
            }
            // Longer than any backoff, and shorter than the retention.
            for attempt in 0.. {
                self.ping_session(index);
                self.resolve_all().await;
                let (status, _) = self.rows[index].pings.remove(0).output().await;
                match self.rows[index].state {
                    State::Ended => assert_eq!(status, 404, "a restart does not forget the end"),
                    State::Live { .. } | State::Opening if status == 503 && attempt < 5 => {
                        advance(Duration::from_secs(16)).await;
                        continue;
                    }
                    State::Live { .. } | State::Opening => assert_eq!(status, 200),
                }
                break;
            }
        }
    }

    async fn resolve_all(&self) {
        loop {
            run_ready_tasks().await;
            let pending = self.harness.spawner.pending();
            let Some(tag) = pending.first() else { break };
            self.harness.spawner.resolve(tag, SpawnOutcome::Ready);
        }
    }

    /// Compares the answers so far with the model.
    fn collect_answers(&mut self) {
        let (now, mut opened) = (Instant::now(), Vec::new());
        for (index, row) in self.rows.iter_mut().enumerate() {
            if let Some((status, id)) = row.opening.as_mut().and_then(InBackground::try_output) {
                row.opening = None;
                assert_eq!(status == 200, id.is_some());
                match (row.state, status) {
                    (State::Opening, 200) => {
                        row.state = State::Live { last: now };
                        opened.push((row.who, index));
                    }
                    (State::Opening, 502 | 503) => row.state = State::Ended,
                    (State::Ended, 401 | 502 | 503) => {}
                    unexpected => panic!("{unexpected:?}"),
                }
                row.id = id;
            }
            row.pings.retain_mut(|ping| {
                let Some((status, _)) = ping.try_output() else {
                    return true;
                };
                match row.state {
                    // The backend fails to start or crashes, but the session has not ended.
                    State::Live { .. } => {
                        assert!(matches!(status, 200 | 502 | 503), "{status}");
                        row.state = State::Live { last: now };
                    }
                    State::Ended => {
                        assert!(matches!(status, 401 | 404 | 503), "{status}");
                        assert!(status != 404 || row.name.is_none(), "the client has no id to give up");
                    }
                    State::Opening => panic!("no client has the id of an opening session"),
                }
                false
            });
        }
        for (who, index) in &opened {
            let only = opened.iter().filter(|(other, _)| other == who).count() == 1;
            self.last_opened.insert(who, only.then_some(*index));
        }
    }

    fn check(&self) {
        let stats = self.harness.registry.stats();
        let live = |row: &&Row| matches!(row.state, State::Live { .. });
        let live = self.rows.iter().filter(live).count();
        assert_eq!(stats.attached + stats.dormant, live, "{stats:?}");
        assert_eq!(stats.stopping, self.counted(|_| true) - live - stats.opening);
        let stops_held = self.harness.spawner.holds_stops();
        for row in &self.rows {
            let (serving, spawns) = (self.serving(row).len(), self.spawns(row));
            assert!(serving <= 1, "two backends serve one session");
            let running = self.backends(row);
            assert!(
                stops_held || running <= 2,
                "at most one backend beside the one that serves"
            );
            assert!(spawns <= 1, "a revival or a rotation");
            assert!(row.pings.is_empty() || spawns > 0, "a request waits without a spawn");
            assert!(
                row.state != State::Ended || (serving == 0 && spawns == 0),
                "an ended session has a backend"
            );
            assert!(stops_held || row.state != State::Ended || self.backends(row) == 0);
        }
    }

    fn end(&mut self, index: usize) {
        self.rows[index].state = State::Ended;
    }

    fn end_where(&mut self, wanted: impl Fn(&Row) -> bool) {
        for row in self.rows.iter_mut().filter(|row| wanted(row)) {
            row.state = State::Ended;
        }
    }

    fn choose(&mut self, wanted: impl Fn(&Row) -> bool) -> Option<usize> {
        let matching: Vec<usize> = (0..self.rows.len())
            .filter(|index| wanted(&self.rows[*index]))
            .collect();
        (!matching.is_empty()).then(|| pick(&mut self.rng, &matching))
    }
}

impl Row {
    fn new(who: &'static str) -> Self {
        Self {
            who,
            tag: "".into(),
            id: None,
            name: None,
            predecessors: Vec::new(),
            left: None,
            state: State::Ended,
            opening: None,
            pings: Vec::new(),
            waiting_since: Instant::now(),
            pinged: Instant::now(),
            served_by: None,
            replaced: None,
        }
    }

    /// False for an implicit session that has ended: a call would make another one.
    fn can_be_called(&self) -> bool {
        self.id.is_some() || (self.name.is_some() && self.state != State::Ended)
    }
}

fn contains(backends: &[Arc<ScriptedBackend>], backend: &Arc<ScriptedBackend>) -> bool {
    backends.iter().any(|other| Arc::ptr_eq(other, backend))
}

/// The running backends of a session.
fn running(harness: &Harness, row: &Row) -> Vec<Arc<ScriptedBackend>> {
    let mut backends = harness.spawner.running_backends();
    match &row.left {
        Some(left) => backends.retain(|backend| contains(left, backend)),
        None => backends.retain(|backend| backend.tag() == &*row.tag && !contains(&row.predecessors, backend)),
    }
    backends
}

/// Those of them that were not told to stop.
fn serving(harness: &Harness, row: &Row) -> Vec<Arc<ScriptedBackend>> {
    let mut backends = running(harness, row);
    backends.retain(|backend| backend.stop_count() == 0);
    backends
}

/// The user of a caller.
fn user(who: &str) -> UserId {
    UserId(who.split('/').next().unwrap_or(who).into())
}
