//! The policy of stop_sequence: which step at which time.
//!
//! A small machine without a process and without a clock: it is told the time and says what is due. ChildSetup come
//! in one order only: close stdin, SIGTERM, and after the grace SIGKILL, which is repeated (and reported) for as
//! long as the process does not go. Asking twice changes nothing.

use std::time::Duration;

use tokio::time::Instant;

/// How often SIGKILL is repeated. The first one nearly always does it; a repetition reaches a process that came
/// into the group since, and gives the log a sign of life.
const KILL_REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// What to do to the child now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAction {
    /// Close its stdin.
    CloseStdin,
    /// Send SIGTERM to its group.
    Terminate,
    /// Send SIGKILL to its group.
    Kill,
    /// Send SIGKILL once more: the first one had no effect yet.
    KillAgain,
}

/// Where the stop_sequence of one child stands.
#[derive(Debug)]
pub(crate) struct StopSequence {
    grace: Duration,
    phase: StopPhase,
}

#[derive(Debug)]
enum StopPhase {
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

impl StopSequence {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            phase: StopPhase::Running,
        }
    }

    /// Asks for the stop. Only the first call counts.
    pub(crate) fn request(&mut self) {
        if matches!(self.phase, StopPhase::Running) {
            self.phase = StopPhase::Asked;
        }
    }

    /// Whether the stop was asked for.
    pub(crate) fn requested(&self) -> bool {
        !matches!(self.phase, StopPhase::Running)
    }

    /// The next step that is due at `now`, which counts as taken. Call until it gives `None`.
    pub(crate) fn next_action(&mut self, now: Instant) -> Option<StopAction> {
        let (step, next) = match self.phase {
            StopPhase::Asked => (StopAction::CloseStdin, StopPhase::StdinClosed),
            StopPhase::StdinClosed => (
                StopAction::Terminate,
                StopPhase::Terminated {
                    kill_at: now + self.grace,
                },
            ),
            StopPhase::Terminated { kill_at } if kill_at <= now => (
                StopAction::Kill,
                StopPhase::Killed {
                    again_at: now + KILL_REPEAT_INTERVAL,
                },
            ),
            StopPhase::Killed { again_at } if again_at <= now => (
                StopAction::KillAgain,
                StopPhase::Killed {
                    again_at: now + KILL_REPEAT_INTERVAL,
                },
            ),
            StopPhase::Running | StopPhase::Terminated { .. } | StopPhase::Killed { .. } => return None,
        };
        self.phase = next;
        Some(step)
    }

    /// When to ask [`due`](Self::due) again, if time alone can make something due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            StopPhase::Terminated { kill_at } => Some(kill_at),
            StopPhase::Killed { again_at } => Some(again_at),
            StopPhase::Running | StopPhase::Asked | StopPhase::StdinClosed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn steps(sequence: &mut StopSequence, now: Instant) -> Vec<StopAction> {
        std::iter::from_fn(|| sequence.next_action(now)).collect()
    }

    #[test]
    fn nothing_is_due_before_it_is_asked_for() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        assert_eq!(steps(&mut sequence, now + GRACE * 100), []);
        assert_eq!(sequence.next_deadline(), None);
        assert!(!sequence.requested());
    }

    #[test]
    fn stdin_and_sigterm_come_at_once_and_sigkill_after_the_grace() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        sequence.request();
        assert_eq!(
            steps(&mut sequence, now),
            [StopAction::CloseStdin, StopAction::Terminate]
        );
        assert_eq!(sequence.next_deadline(), Some(now + GRACE));
        assert_eq!(steps(&mut sequence, now + GRACE - Duration::from_millis(1)), []);
        assert_eq!(steps(&mut sequence, now + GRACE), [StopAction::Kill]);
    }

    #[test]
    fn asking_again_neither_repeats_a_step_nor_prolongs_the_grace() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        sequence.request();
        steps(&mut sequence, now);
        sequence.request();
        assert_eq!(steps(&mut sequence, now + GRACE / 2), []);
        assert_eq!(sequence.next_deadline(), Some(now + GRACE));
        assert!(sequence.requested());
    }

    #[test]
    fn sigkill_is_repeated_while_the_process_stays() {
        let mut sequence = StopSequence::new(Duration::ZERO);
        let now = Instant::now();
        sequence.request();
        assert_eq!(
            steps(&mut sequence, now),
            [StopAction::CloseStdin, StopAction::Terminate, StopAction::Kill]
        );
        assert_eq!(steps(&mut sequence, now), []);
        assert_eq!(
            steps(&mut sequence, now + KILL_REPEAT_INTERVAL),
            [StopAction::KillAgain]
        );
        assert_eq!(
            steps(&mut sequence, now + KILL_REPEAT_INTERVAL * 2),
            [StopAction::KillAgain]
        );
    }
}
