//! The most recently ended sessions, so that an ended one is distinguished from an unknown one.
//! Bounded: the oldest goes first.

use std::collections::{HashSet, VecDeque};

use crate::ports::SessionKey;

/// The keys of ended sessions. `order` and `keys` hold the same keys, at most `limit` of them.
#[derive(Debug)]
pub(crate) struct Tombstones {
    limit: usize,
    order: VecDeque<SessionKey>,
    keys: HashSet<SessionKey>,
}

impl Tombstones {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            order: VecDeque::new(),
            keys: HashSet::new(),
        }
    }

    pub(crate) fn add(&mut self, key: SessionKey) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
    }

    pub(crate) fn contains(&self, key: &SessionKey) -> bool {
        self.keys.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oldest_tombstone_goes_first_and_their_number_is_bounded() {
        let keys = [0, 1, 2, 3, 4].map(|n| SessionKey([n; 32]));
        let mut tombstones = Tombstones::new(3);
        for key in &keys {
            tombstones.add(*key);
            tombstones.add(*key);
        }
        assert_eq!(tombstones.order.len(), 3);
        assert_eq!(tombstones.keys, keys[2..].iter().copied().collect());
    }

    #[test]
    fn limit_of_zero_remembers_nothing() {
        let mut tombstones = Tombstones::new(0);
        tombstones.add(SessionKey([0; 32]));
        assert!(tombstones.keys.is_empty() && tombstones.order.is_empty());
    }
}
