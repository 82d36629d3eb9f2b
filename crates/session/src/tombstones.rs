//! The newest ended keys, so that an ended session is told from one that never was. Bounded: the oldest goes first.

use std::collections::{HashSet, VecDeque};

use crate::ports::SessionKey;

/// The newest ended keys. `order` and `keys` hold the same keys, at most `cap` of them.
#[derive(Debug)]
pub(crate) struct Tombstones {
    cap: usize,
    order: VecDeque<SessionKey>,
    keys: HashSet<SessionKey>,
}

impl Tombstones {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            cap,
            order: VecDeque::new(),
            keys: HashSet::new(),
        }
    }

    pub(crate) fn add(&mut self, key: SessionKey) {
        if self.keys.insert(key) {
            self.order.push_back(key);
        }
        while self.order.len() > self.cap {
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
    use crate::id::SessionId;

    #[test]
    fn the_oldest_tombstone_goes_first_and_their_number_is_bounded() {
        let keys: Vec<SessionKey> = (0..5).map(|_| SessionId::draw().unwrap().key()).collect();
        let mut tombs = Tombstones::new(3);
        for key in &keys {
            tombs.add(*key);
            tombs.add(*key);
        }
        assert_eq!(tombs.order.len(), 3);
        assert_eq!(tombs.keys, keys[2..].iter().copied().collect());
    }

    #[test]
    fn without_tombstones_nothing_is_remembered() {
        let mut tombs = Tombstones::new(0);
        tombs.add(SessionId::draw().unwrap().key());
        assert!(tombs.keys.is_empty() && tombs.order.is_empty());
    }
}
