//! The stop sequence: which action is due at which time.
//!
//! A state machine without a process and without a clock: the caller passes the time. The actions
//! come in a fixed order: close stdin, SIGTERM, and after the grace period SIGKILL, which is
//! repeated (and logged) until the process is gone. Further stop requests change nothing.

use std::time::Duration;

use tokio::time::Instant;

/// Interval at which SIGKILL is repeated. The first one nearly always suffices; a repetition
/// reaches a process that joined the group since, and shows in the log that the stop still waits.
const KILL_REPEAT_INTERVAL: Duration = Duration::from_secs(1);

/// An action on the child that is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAction {
    /// Close its stdin.
    CloseStdin,
    /// Send SIGTERM to its group.
    Terminate,
    /// Send SIGKILL to its group.
    Kill,
    /// Send SIGKILL once more, since the first one had no effect yet.
    KillAgain,
}

/// The progress of stopping one child.
#[derive(Debug)]
pub(crate) struct StopSequence {
    grace: Duration,
    phase: StopPhase,
}

#[derive(Debug)]
enum StopPhase {
    Running,
    Requested,
    StdinClosed,
    Terminated { kill_at: Instant },
    Killed { again_at: Instant },
}

impl StopSequence {
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            grace,
            phase: StopPhase::Running,
        }
    }

    /// Requests the stop. Only the first call counts.
    pub(crate) fn request(&mut self) {
        if !self.requested() {
            self.phase = StopPhase::Requested;
        }
    }

    pub(crate) fn requested(&self) -> bool {
        !matches!(self.phase, StopPhase::Running)
    }

    /// The next action that is due at `now`; it counts as done. Call until it returns `None`.
    pub(crate) fn next_action(&mut self, now: Instant) -> Option<StopAction> {
        let terminated = || StopPhase::Terminated {
            kill_at: now + self.grace,
        };
        let killed = || StopPhase::Killed {
            again_at: now + KILL_REPEAT_INTERVAL,
        };
        let (action, next) = match self.phase {
            StopPhase::Requested => (StopAction::CloseStdin, StopPhase::StdinClosed),
            StopPhase::StdinClosed => (StopAction::Terminate, terminated()),
            StopPhase::Terminated { kill_at } if kill_at <= now => (StopAction::Kill, killed()),
            StopPhase::Killed { again_at } if again_at <= now => (StopAction::KillAgain, killed()),
            StopPhase::Running | StopPhase::Terminated { .. } | StopPhase::Killed { .. } => return None,
        };
        self.phase = next;
        Some(action)
    }

    /// The time at which [`next_action`](Self::next_action) may return an action again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            StopPhase::Terminated { kill_at } => Some(kill_at),
            StopPhase::Killed { again_at } => Some(again_at),
            StopPhase::Running | StopPhase::Requested | StopPhase::StdinClosed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    fn actions(sequence: &mut StopSequence, now: Instant) -> Vec<StopAction> {
        std::iter::from_fn(|| sequence.next_action(now)).collect()
    }

    #[test]
    fn no_action_is_due_before_a_stop_is_requested() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        assert_eq!(actions(&mut sequence, now + GRACE * 100), []);
        assert_eq!(sequence.next_deadline(), None);
        assert!(!sequence.requested());
    }

    #[test]
    fn stdin_close_and_sigterm_are_immediate_and_sigkill_follows_the_grace() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        sequence.request();
        assert_eq!(
            actions(&mut sequence, now),
            [StopAction::CloseStdin, StopAction::Terminate]
        );
        assert_eq!(sequence.next_deadline(), Some(now + GRACE));
        assert_eq!(actions(&mut sequence, now + GRACE - Duration::from_millis(1)), []);
        assert_eq!(actions(&mut sequence, now + GRACE), [StopAction::Kill]);
    }

    #[test]
    fn second_request_neither_repeats_an_action_nor_extends_the_grace() {
        let mut sequence = StopSequence::new(GRACE);
        let now = Instant::now();
        sequence.request();
        actions(&mut sequence, now);
        sequence.request();
        assert_eq!(actions(&mut sequence, now + GRACE / 2), []);
        assert_eq!(sequence.next_deadline(), Some(now + GRACE));
        assert!(sequence.requested());
    }

    #[test]
    fn sigkill_is_repeated_until_the_process_is_gone() {
        let mut sequence = StopSequence::new(Duration::ZERO);
        let now = Instant::now();
        sequence.request();
        assert_eq!(
            actions(&mut sequence, now),
            [StopAction::CloseStdin, StopAction::Terminate, StopAction::Kill]
        );
        assert_eq!(actions(&mut sequence, now), []);
        assert_eq!(
            actions(&mut sequence, now + KILL_REPEAT_INTERVAL),
            [StopAction::KillAgain]
        );
        assert_eq!(
            actions(&mut sequence, now + KILL_REPEAT_INTERVAL * 2),
            [StopAction::KillAgain]
        );
    }
}
