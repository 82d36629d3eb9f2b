//! What is in use of something limited: in all, and by each owner.

use std::{collections::HashMap, hash::Hash};

#[derive(Debug)]
pub(crate) struct Usage<K> {
    total: usize,
    /// Has no entry for an owner without use.
    by_owner: HashMap<K, usize>,
}

impl<K: Clone + Eq + Hash> Usage<K> {
    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The use of one owner.
    pub(crate) fn of(&self, owner: &K) -> usize {
        self.by_owner.get(owner).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, owner: &K, amount: usize) {
        self.total += amount;
        *self.by_owner.entry(owner.clone()).or_default() += amount;
    }

    pub(crate) fn remove(&mut self, owner: &K, amount: usize) {
        self.total = self.total.saturating_sub(amount);
        if let Some(own) = self.by_owner.get_mut(owner) {
            *own = own.saturating_sub(amount);
            if *own == 0 {
                self.by_owner.remove(owner);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.total == 0 && self.by_owner.is_empty()
    }
}

impl<K> Default for Usage<K> {
    fn default() -> Self {
        Self {
            total: 0,
            by_owner: HashMap::new(),
        }
    }
}
