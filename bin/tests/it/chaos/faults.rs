//! What happens to the clients: children are killed at random times, and the broker is restarted.

use std::{fs, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Chaos, Dice, RESTARTS, ledger::Tag, now};

/// A child that was killed.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    pub(crate) pid: u32,
    /// Whose child it was.
    pub(crate) tag: Tag,
    /// When it was told to die.
    pub(crate) issued: Duration,
    /// When it was seen to be gone.
    pub(crate) gone: Duration,
}

/// A time in which the broker came to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) begun: Duration,
    pub(crate) over: Duration,
}

impl Chaos {
    /// Kills and restarts for as long as the plan says.
    pub(crate) async fn inject_faults(&mut self) {
        let (began, length) = (Instant::now(), self.plan.length);
        let mut dice = Dice::new(self.plan.seed);
        for restart in 1..=RESTARTS {
            self.kill_until(began + length * restart / (RESTARTS + 1), &mut dice)
                .await;
            self.stop().await;
            self.harness.broker.start_again().await.unwrap();
        }
        self.kill_until(began + length, &mut dice).await;
    }

    /// Stops the broker; nothing of its children is left then.
    pub(super) async fn stop(&mut self) {
        let begun = now();
        if !self.harness.broker.terminate().await.unwrap().success() {
            self.run.trouble("the broker did not end well".to_owned());
        }
        self.stops.push(Stop { begun, over: now() });
        // The address of its Forgejo is in the arguments of each child, and no other test has it.
        let left = processes_with(self.harness.forgejo.url());
        if !left.is_empty() {
            self.run.trouble(format!("children are left: {left:?}"));
        }
    }

    async fn kill_until(&mut self, end: Instant, dice: &mut Dice) {
        while Instant::now() < end {
            sleep(Duration::from_millis(100 + dice.below(400))).await;
            self.kill(dice).await;
        }
    }

    async fn kill(&mut self, dice: &mut Dice) {
        self.ledger.read(self.harness.broker.log());
        let children = self.harness.broker.children().unwrap();
        let Some(child) = children.get(dice.index(children.len())) else {
            return;
        };
        // One of which the log says nothing yet is spared: it could not be told whose it was.
        let Some(tag) = self.ledger.owner(child.pid).cloned() else {
            return;
        };
        // Who dies twice before it has answered is put off for a while, and its client is told so. That is as it should be, and
        // not what this is about.
        let proven = self.ledger.proven(&tag);
        if self.struck.get(&tag) == Some(&proven) {
            return;
        }
        let issued = now();
        if !child.is_alive() || child.kill().is_err() {
            return;
        }
        child.exited().await.unwrap();
        self.struck.insert(tag.clone(), proven);
        self.kills.push(Kill {
            pid: child.pid,
            tag,
            issued,
            gone: now(),
        });
    }
}

/// The processes whose arguments contain a text.
fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        // Empty for a process that has ended, and that nobody has waited for yet.
        let arguments = fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        if name.parse::<u32>().is_ok() && String::from_utf8_lossy(&arguments).contains(text) {
            found.push(name);
        }
    }
    found
}
