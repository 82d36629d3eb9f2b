//! Fault injection: kills of children at random times, and restarts of the broker.

use std::{fs, time::Duration};

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use super::{Chaos, MIN_ANSWERS, MIN_KILLS, MIN_QUESTIONS, MIN_REVIVALS, RESTARTS, ledger::Tag, now};

/// A run on a slow machine takes at most this many times the planned duration.
const MAX_EXTENSION: u32 = 4;

/// A child that was killed.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) pid: u32,
    /// The session of the child.
    pub(crate) tag: Tag,
    /// The time just before the signal.
    pub(crate) issued: Duration,
    /// The time at which the child was seen to have exited.
    pub(crate) exited: Duration,
}

/// The period in which the broker stopped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrokerStop {
    pub(crate) start: Duration,
    pub(crate) end: Duration,
}

impl Chaos {
    /// Kills children and restarts the broker for the duration of the plan, and on a slow machine
    /// until enough has happened.
    pub(crate) async fn inject_faults(&mut self) {
        let (start, duration) = (Instant::now(), self.plan.duration);
        let mut rng = Rng::with_seed(self.plan.seed);
        for restart in 1..=RESTARTS {
            self.kill_until(start + duration * restart / (RESTARTS + 1), &mut rng)
                .await;
            self.stop_broker().await;
            self.harness.broker.start_again().await.unwrap();
        }
        self.kill_until(start + duration, &mut rng).await;
        while !self.is_eventful() && start.elapsed() < duration * MAX_EXTENSION {
            self.kill_until(Instant::now() + duration / RESTARTS, &mut rng).await;
        }
    }

    /// True if the run proves something; see the checks of [`finish`](Self::finish).
    fn is_eventful(&mut self) -> bool {
        self.ledger.read(self.harness.broker.log());
        let entries = self.reports.entries();
        let calls = &entries.calls;
        let with_question = calls.iter().filter(|call| call.asks).count();
        // Some of the calls have failed with their children.
        self.kills.len() > MIN_KILLS
            && calls.len() > 2 * MIN_ANSWERS
            && with_question > 2 * MIN_QUESTIONS
            && self.ledger.rotation_stats().revivals > MIN_REVIVALS
    }

    /// Stops the broker and checks that it leaves no children.
    pub(super) async fn stop_broker(&mut self) {
        let start = now();
        if !self.harness.broker.terminate().await.unwrap().success() {
            self.reports
                .add_problem("the broker exited with an error status".to_owned());
        }
        self.stops.push(BrokerStop { start, end: now() });
        // The arguments of each child contain the address of this test's Forgejo.
        let left = processes_with(self.harness.forgejo.url());
        if !left.is_empty() {
            self.reports.add_problem(format!("children are left: {left:?}"));
        }
    }

    async fn kill_until(&mut self, end: Instant, rng: &mut Rng) {
        while Instant::now() < end {
            sleep(Duration::from_millis(100 + rng.u64(..400))).await;
            self.kill(rng).await;
        }
    }

    async fn kill(&mut self, rng: &mut Rng) {
        self.ledger.read(self.harness.broker.log());
        let children = self.harness.broker.children().unwrap();
        let Some(child) = rng.choice(&children) else {
            return;
        };
        // The session of a child is unknown until the log names it.
        let Some(tag) = self.ledger.owner(child.pid).cloned() else {
            return;
        };
        // A session whose children die twice without an answer has to wait for its next start, and
        // its client gets an error. This is correct, and not the subject of this test.
        let proven = self.ledger.proven(&tag);
        if self.proven_at_kill.get(&tag) == Some(&proven) {
            return;
        }
        let issued = now();
        if !child.is_alive() || child.kill().is_err() {
            return;
        }
        child.exited().await.unwrap();
        self.proven_at_kill.insert(tag.clone(), proven);
        self.kills.push(Kill {
            pid: child.pid,
            tag,
            issued,
            exited: now(),
        });
    }
}

/// The processes whose arguments contain a text.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        // Empty for a zombie.
        let arguments = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        if name.parse::<u32>().is_ok() && String::from_utf8_lossy(&arguments).contains(text) {
            found.push(name);
        }
    }
    found
}
