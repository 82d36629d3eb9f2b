//! The policy of stopping: which step at which time.
//!
//! A small machine without a process and without a clock: it is told the time and says what is due. Steps come
//! in one order only: close stdin, SIGTERM, and after the grace SIGKILL, which is repeated (and reported) for as
//! long as the process does not go. Asking twice changes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How often SIGKILL is repeated. The first one nearly always does it; a repetition reaches a process that came
/// into the group since, and gives the log a sign of life.
const AGAIN: Duration = Duration::from_secs(1);

/// What to do to the child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Close its stdin.
    CloseStdin,
    /// Send SIGTERM to its group.
    Terminate,
    /// Send SIGKILL to its group.
    Kill,
    /// Send SIGKILL once more: the first one had no effect yet.
    KillAgain,
}

/// Where the stopping of one child stands.
#[derive(Debug)]
pub(crate) struct Stopping {
    grace: Duration,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Nobody asked.
    Running,
    /// Asked, nothing done yet.
    Asked,
    StdinClosed,
    Terminated {
        kill_at: Instant,
    },
    Killed {
        again_at: Instant,
    },
}

impl Stopping {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            phase: Phase::Running,
        }
    }

    /// Asks for the stop. Only the first call counts.
    pub(crate) fn ask(&mut self) {
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Asked;
        }
    }

    /// Whether the stop was asked for.
    pub(crate) fn asked(&self) -> bool {
        !matches!(self.phase, Phase::Running)
    }

    /// The next step that is due at `now`, which counts as taken. Call until it gives `None`.
    pub(crate) fn due(&mut self, now: Instant) -> Option<Step> {
        let (step, next) = match self.phase {
            Phase::Asked => (Step::CloseStdin, Phase::StdinClosed),
            Phase::StdinClosed => (
                Step::Terminate,
                Phase::Terminated {
                    kill_at: now + self.grace,
                },
            ),
            Phase::Terminated { kill_at } if kill_at <= now => (Step::Kill, Phase::Killed { again_at: now + AGAIN }),
            Phase::Killed { again_at } if again_at <= now => (Step::KillAgain, Phase::Killed { again_at: now + AGAIN }),
            Phase::Running | Phase::Terminated { .. } | Phase::Killed { .. } => return None,
        };
        self.phase = next;
        Some(step)
    }

    /// When to ask [`due`](Self::due) again, if time alone can make something due.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Terminated { kill_at } => Some(kill_at),
            Phase::Killed { again_at } => Some(again_at),
            Phase::Running | Phase::Asked | Phase::StdinClosed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn steps(stopping: &mut Stopping, now: Instant) -> Vec<Step> {
        std::iter::from_fn(|| stopping.due(now)).collect()
    }

    #[test]
    fn nothing_is_due_before_it_is_asked_for() {
        let mut stopping = Stopping::new(GRACE);
        let now = Instant::now();
        assert_eq!(steps(&mut stopping, now + GRACE * 100), []);
        assert_eq!(stopping.wake_at(), None);
        assert!(!stopping.asked());
    }

    #[test]
    fn stdin_and_sigterm_come_at_once_and_sigkill_after_the_grace() {
        let mut stopping = Stopping::new(GRACE);
        let now = Instant::now();
        stopping.ask();
        assert_eq!(steps(&mut stopping, now), [Step::CloseStdin, Step::Terminate]);
        assert_eq!(stopping.wake_at(), Some(now + GRACE));
        assert_eq!(steps(&mut stopping, now + GRACE - Duration::from_millis(1)), []);
        assert_eq!(steps(&mut stopping, now + GRACE), [Step::Kill]);
    }

    #[test]
    fn asking_again_neither_repeats_a_step_nor_prolongs_the_grace() {
        let mut stopping = Stopping::new(GRACE);
        let now = Instant::now();
        stopping.ask();
        steps(&mut stopping, now);
        stopping.ask();
        assert_eq!(steps(&mut stopping, now + GRACE / 2), []);
        assert_eq!(stopping.wake_at(), Some(now + GRACE));
        assert!(stopping.asked());
    }

    #[test]
    fn sigkill_is_repeated_while_the_process_stays() {
        let mut stopping = Stopping::new(Duration::ZERO);
        let now = Instant::now();
        stopping.ask();
        assert_eq!(
            steps(&mut stopping, now),
            [Step::CloseStdin, Step::Terminate, Step::Kill]
        );
        assert_eq!(steps(&mut stopping, now), []);
        assert_eq!(steps(&mut stopping, now + AGAIN), [Step::KillAgain]);
        assert_eq!(steps(&mut stopping, now + AGAIN * 2), [Step::KillAgain]);
    }
}
