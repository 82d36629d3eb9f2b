//! A user of its own for each child, from a range of numbers that nobody else uses.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

/// The range, and who has which number of it.
#[derive(Clone, Debug)]
pub(super) struct UserPool {
    range: RangeInclusive<u32>,
    /// The numbers that are taken, each by exactly one [`UserLease`]. Locked only to take one or to give it back.
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

/// One number, given back when it is dropped: after the last process that has it is gone.
#[derive(Debug)]
pub(super) struct UserLease {
    number: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl UserPool {
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            range,
            taken: Arc::default(),
        }
    }

    /// The lowest free number, if there is one.
    pub(super) fn lease(&self) -> Option<UserLease> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.range.clone().find(|number| !taken.contains(number))?;
        taken.insert(number);
        Some(UserLease {
            number,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl UserLease {
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for UserLease {
    fn drop(&mut self) {
        self.taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_given_twice_and_a_returned_one_is_given_again() {
        let users = UserPool::new(70_000..=70_001);
        let (one, two) = (users.lease().unwrap(), users.lease().unwrap());
        assert_eq!((one.number(), two.number()), (70_000, 70_001));
        assert!(users.lease().is_none());
        drop(one);
        assert_eq!(users.lease().unwrap().number(), 70_000);
    }
}
