//! When to look at which session next: a small state machine that takes the time as an argument.
//!
//! The reaper and the rotator each have one. A sweep costs what is due and nothing for what is not. Nothing is moved on
//! activity: whoever finds at its time that a session was busy meanwhile puts it on the agenda again.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::ports::SessionKey;

/// Keys by time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    // The same keys, each once in either.
    by_time: BTreeSet<(Instant, SessionKey)>,
    times: HashMap<SessionKey, Instant>,
}

impl Agenda {
    /// Puts a key on the agenda, in the place of an earlier entry of it.
    pub(crate) fn set(&mut self, key: SessionKey, at: Instant) {
        if let Some(before) = self.times.insert(key, at) {
            self.by_time.remove(&(before, key));
        }
        self.by_time.insert((at, key));
    }

    /// Takes a key off.
    pub(crate) fn cancel(&mut self, key: &SessionKey) {
        if let Some(at) = self.times.remove(key) {
            self.by_time.remove(&(at, *key));
        }
    }

    /// Takes off what is due, earliest first.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<SessionKey> {
        let mut due = Vec::new();
        while let Some((at, key)) = self.by_time.first().copied() {
            if at > now {
                break;
            }
            self.by_time.pop_first();
            self.times.remove(&key);
            due.push(key);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::id::SessionId;

    #[test]
    fn due_is_what_has_come_once_and_in_order() {
        let keys: Vec<SessionKey> = (0..4).map(|_| SessionId::draw().unwrap().key()).collect();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut agenda = Agenda::default();
        agenda.set(keys[0], at(3));
        agenda.set(keys[1], at(1));
        agenda.set(keys[2], at(2));
        agenda.set(keys[3], at(1));
        agenda.set(keys[3], at(9));
        agenda.cancel(&keys[2]);
        assert_eq!(agenda.due(at(0)), []);
        assert_eq!(agenda.due(at(3)), [keys[1], keys[0]]);
        assert_eq!(agenda.due(at(8)), []);
        assert_eq!(agenda.due(at(9)), [keys[3]]);
        assert!(agenda.times.is_empty() && agenda.by_time.is_empty());
    }
}
