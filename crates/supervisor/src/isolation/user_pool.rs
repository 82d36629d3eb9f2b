//! A private user for each child, from a range of numbers that nothing else uses.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

/// The range and its numbers in use.
#[derive(Clone, Debug)]
pub(super) struct UserPool {
    range: RangeInclusive<u32>,
    /// The numbers in use, each by exactly one [`UserLease`]. Locked only to take or return one.
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

/// A number in use. Its drop returns it, so it must outlive the last process of its user.
#[derive(Debug)]
pub(super) struct UserLease {
    pub(super) number: u32,
    taken: Arc<Mutex<BTreeSet<u32>>>,
}

impl UserPool {
    pub(super) fn new(range: RangeInclusive<u32>) -> Self {
        Self {
            range,
            taken: Arc::default(),
        }
    }

    /// The lowest free number, if any.
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

impl Drop for UserLease {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_in_use_is_not_leased_again_until_it_is_returned() {
        let users = UserPool::new(70_000..=70_001);
        let (one, two) = (users.lease().unwrap(), users.lease().unwrap());
        assert_eq!((one.number, two.number), (70_000, 70_001));
        assert!(users.lease().is_none());
        drop(one);
        assert_eq!(users.lease().unwrap().number, 70_000);
    }
}
