//! The memory that the conversations of a process may use together for messages.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A limit on the bytes of all messages that conversations keep: pending and replayable events,
/// requests that wait or may be sent again, and lines for servers. Clones share it.
///
/// At the limit a conversation evicts its own replay buffer, drops notifications, replaces
/// responses by errors and rejects requests. The limit may be exceeded by one message of each
/// conversation.
#[derive(Clone, Debug)]
pub struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    limit: usize,
    used: AtomicUsize,
}

/// The share that one user of the budget has. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct Share {
    budget: MemoryBudget,
    bytes: usize,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let used = AtomicUsize::new(0);
        Self(Arc::new(Budget { limit, used }))
    }

    /// The bytes in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Share {
    /// Sets the size of the share.
    pub(crate) fn set(&mut self, bytes: usize) {
        let used = &self.budget.0.used;
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) => _ = used.fetch_add(more, Ordering::Relaxed),
            None => _ = used.fetch_sub(self.bytes - bytes, Ordering::Relaxed),
        }
        self.bytes = bytes;
    }

    /// True if the budget is exceeded once this share has so many bytes.
    pub(crate) fn exceeds(&self, bytes: usize) -> bool {
        let others = self.budget.used().saturating_sub(self.bytes);
        others.saturating_add(bytes) > self.budget.0.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_budget() {
        let budget = MemoryBudget::new(10);
        let (mut one, mut two) = (budget.share(), budget.share());
        one.set(6);
        two.set(3);
        assert_eq!(budget.used(), 9);
        assert!(!two.exceeds(4) && two.exceeds(5));
        one.set(2);
        assert_eq!(budget.used(), 5);
        drop(two);
        assert_eq!(budget.used(), 2);
        drop(one);
        assert_eq!(budget.used(), 0);
    }
}
