//! Deadlines of sessions: a small state machine that takes the time as an argument.
//!
//! The reaper and the rotator have one each. A sweep costs only what is due. Activity moves no
//! deadline: a sweep that finds a session busy sets a new deadline for it.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::{
    ports::SessionKey,
    sync::{Mutex, lock},
};

/// At most one deadline for each session. Nothing else is locked under its lock.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    // Both hold the same keys, each once.
    by_time: BTreeSet<(Instant, SessionKey)>,
    times: HashMap<SessionKey, Instant>,
}

impl Deadlines {
    /// Replaces the deadline of a session.
    pub(crate) fn set(&self, key: SessionKey, at: Option<Instant>) {
        let mut entries = lock(&self.0);
        if let Some(before) = entries.times.remove(&key) {
            entries.by_time.remove(&(before, key));
        }
        if let Some(at) = at {
            entries.times.insert(key, at);
            entries.by_time.insert((at, key));
        }
    }

    /// Removes the deadlines that have come, earliest first.
    pub(crate) fn take_due(&self, now: Instant) -> Vec<SessionKey> {
        let mut entries = lock(&self.0);
        let mut due = Vec::new();
        while let Some((at, key)) = entries.by_time.first().copied() {
            if at > now {
                break;
            }
            entries.by_time.pop_first();
            entries.times.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::permutations::once;

    impl Deadlines {
        pub(crate) fn of(&self, key: &SessionKey) -> Option<Instant> {
            lock(&self.0).times.get(key).copied()
        }
    }

    #[test]
    fn each_deadline_is_due_once_and_in_order() {
        once(|| {
            let keys = [0, 1, 2, 3].map(|n| SessionKey([n; 32]));
            let start = Instant::now();
            let at = |seconds| start + Duration::from_secs(seconds);
            let deadlines = Deadlines::default();
            deadlines.set(keys[0], Some(at(3)));
            deadlines.set(keys[1], Some(at(1)));
            deadlines.set(keys[2], Some(at(2)));
            deadlines.set(keys[3], Some(at(1)));
            deadlines.set(keys[3], Some(at(9)));
            deadlines.set(keys[2], None);
            assert_eq!(deadlines.take_due(at(0)), []);
            assert_eq!(deadlines.take_due(at(3)), [keys[1], keys[0]]);
            assert_eq!(deadlines.take_due(at(8)), []);
            assert_eq!(deadlines.take_due(at(9)), [keys[3]]);
            let entries = lock(&deadlines.0);
            assert!(entries.times.is_empty() && entries.by_time.is_empty());
        });
    }
}
