//! Everything at once: constant load, credentials that run out, children that are killed, idleness, restarts of the broker.
//!
//! What must hold: no request fails but those in flight on a child that is killed, no answer is another session's, no
//! session is lost, and in the end no child is left. The short form runs with all tests; `CHAOS_SECONDS=600` makes it longer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use testkit::Client;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::bed::{Bed, login_in, open};

const SESSIONS: usize = 32;
const RESTARTS: u32 = 5;
/// How long a Forgejo token lives; at half of it a session moves to a fresh child. With 2 every session moves each second, which
/// takes a machine that has the time: `CHAOS_TOKEN_SECONDS=2`.
const TOKEN: u64 = 6;
const IDLE: Duration = Duration::from_secs(2);

/// What all parts of the run see.
#[derive(Debug, Default)]
struct Run {
    over: AtomicBool,
    requests: AtomicUsize,
    /// When a child was told to die, and when it was gone.
    kills: Mutex<Vec<(Instant, Option<Instant>)>>,
    /// Requests that failed while a child died.
    excused: AtomicUsize,
}

/// A small generator (xorshift), so that a seed names a run.
struct Dice(u64);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_rotations_crashes_idleness_and_restarts() {
    let length = seconds("CHAOS_SECONDS", 30);
    let idle = format!("{}s", IDLE.as_secs());
    let mut bed = Bed::with_kept_socket(&[
        ("session.idle_timeout", &idle),
        ("session.reap_interval", "200ms"),
        ("session.rotate_interval", "100ms"),
        ("session.max_sessions_per_user", "64"),
        ("child.stop_grace", "2s"),
        ("log.filter", "info"),
    ])
    .await;
    bed.forgejo
        .set_lifetimes(seconds("CHAOS_TOKEN_SECONDS", TOKEN), Duration::from_secs(3600));
    let mut sessions = Vec::new();
    for login in ["alice", "bob"] {
        let first = bed.signed_in(login).await;
        for _ in 0..SESSIONS / 2 {
            let session = first.another_session().with_fresh_connections();
            open(&session).await;
            sessions.push((login, session));
        }
    }

    let run = Arc::new(Run::default());
    let mut load = JoinSet::new();
    for (number, (login, session)) in sessions.into_iter().enumerate() {
        let run = Arc::clone(&run);
        load.spawn(async move {
            run.load(login, &session, number).await;
            session
        });
    }
    havoc(&mut bed, &run, length).await;
    run.over.store(true, Ordering::SeqCst);
    let sessions = load.join_all().await;

    let (kills, excused) = (run.kills(), run.excused.load(Ordering::SeqCst));
    let requests = run.requests.load(Ordering::SeqCst);
    let moved = bed
        .broker
        .log()
        .text()
        .matches("session moved to a fresh backend")
        .count();
    let revived = bed.broker.log().text().matches("session revived").count();
    println!("{requests} requests, {kills} kills ({excused} requests in flight), {moved} moves, {revived} revivals");
    assert!(
        excused <= kills,
        "{excused} requests failed for {kills} kills, and each session has one in flight"
    );
    assert!(moved > SESSIONS && revived > SESSIONS && kills > 10 && requests > 1000);

    for session in &sessions {
        session.delete().await.unwrap();
    }
    let children = bed.broker.children().unwrap();
    assert!(bed.broker.terminate().await.unwrap().success());
    assert!(children.iter().all(|child| !child.is_alive()), "no child is left");
}

fn seconds(variable: &str, otherwise: u64) -> Duration {
    let given = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(otherwise))
}

/// Kills children at random times, and restarts the broker.
async fn havoc(bed: &mut Bed, run: &Run, length: Duration) {
    let began = Instant::now();
    let mut dice = Dice::new(7);
    for restart in 1..=RESTARTS {
        while began.elapsed() < length * restart / (RESTARTS + 1) {
            sleep(Duration::from_millis(100 + dice.below(400))).await;
            kill(bed, run, &mut dice).await;
        }
        assert!(bed.broker.terminate().await.unwrap().success());
        bed.broker.start_again().await.unwrap();
    }
    while began.elapsed() < length {
        sleep(Duration::from_millis(100 + dice.below(400))).await;
        kill(bed, run, &mut dice).await;
    }
}

async fn kill(bed: &Bed, run: &Run, dice: &mut Dice) {
    let children = bed.broker.children().unwrap();
    let Some(child) = children.get(dice.index(children.len())) else {
        return;
    };
    let number = {
        let mut kills = run.kills.lock().unwrap();
        kills.push((Instant::now(), None));
        kills.len() - 1
    };
    // It may have ended by itself since.
    let _ = child.kill();
    child.gone().await.unwrap();
    run.kills.lock().unwrap()[number].1 = Some(Instant::now());
}

impl Run {
    /// Uses one session until the run is over.
    async fn load(&self, login: &str, session: &Client, number: usize) {
        let mut dice = Dice::new(number as u64 + 1);
        for turn in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            // Now and then for long enough to be put to sleep.
            let long = dice.below(40) == 0;
            sleep(if long {
                IDLE * 3 / 2
            } else {
                Duration::from_millis(20 + dice.below(100))
            })
            .await;
            let began = Instant::now();
            let outcome = if turn % 2 == 0 {
                self.ask(session, "get_my_user_info", json!({}))
                    .await
                    .map(|text| assert_eq!(login_in(&text), login))
            } else {
                let own = format!("session {number} turn {turn}");
                let echo = self.ask(session, "test_echo", json!({ "text": own })).await;
                echo.map(|text| assert!(text.contains(&own), "{own} got {text}"))
            };
            self.requests.fetch_add(1, Ordering::SeqCst);
            if let Err(said) = outcome {
                assert!(
                    self.is_excused(began),
                    "{login} {number}, after {:?}: {said}",
                    began.elapsed()
                );
                self.excused.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// Calls a tool; the error is what was said instead. Whatever is said has to carry the id of the request.
    async fn ask(&self, session: &Client, tool: &str, arguments: Value) -> Result<String, String> {
        let params = json!({ "name": tool, "arguments": arguments });
        let (answer, id) = session
            .request("tools/call", params)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let response = answer
            .response_to(&id)
            .unwrap_or_else(|| panic!("{} {}", answer.status, answer.text()));
        match response["result"]["content"][0]["text"].as_str() {
            Some(text) if answer.status == 200 && response["result"]["isError"] != json!(true) => Ok(text.to_owned()),
            _ => Err(format!("{}: {response}", answer.status)),
        }
    }

    /// Whether a child died while a request was under way that began then and has just ended.
    fn is_excused(&self, began: Instant) -> bool {
        let kills = self.kills.lock().unwrap();
        kills.iter().any(|(_, gone)| gone.is_none_or(|gone| gone >= began))
    }

    fn kills(&self) -> usize {
        self.kills.lock().unwrap().len()
    }
}

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length.max(1) as u64)).unwrap()
    }
}
