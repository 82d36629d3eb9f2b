//! The caps: how many sessions there may be, in all and for one user.
//!
//! A [`Slot`] is taken before anything is spawned and given back when it is dropped, so that the counts are exact however
//! many requests race. The user's own cap is asked first: a user who is at it hears about that, and not about others.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError},
};

use tokio_util::sync::DropGuard;

use crate::{
    ports::UserId,
    sync::{Mutex, MutexGuard},
};

/// Counts the slots that are taken.
#[derive(Debug)]
pub(crate) struct Caps {
    total: usize,
    per_user: usize,
    // `taken` is the sum of the counts in `by_user`, and no count is zero.
    counts: Mutex<Counts>,
}

/// The right to one session of a user. Dropping it gives it back.
pub(crate) struct Slot {
    caps: Arc<Caps>,
    user: UserId,
}

/// What a session holds until it has ended and nothing is left of its backends: its slot, and the word that all is
/// gone. The session and each of its keepers share it; the last one to let go gives the slot back, and then the word.
#[derive(Debug)]
pub(crate) struct Hold {
    // In this order: the word that all is gone comes when the slot is free.
    _slot: Slot,
    _gone: DropGuard,
}

/// Which cap is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The user holds as many sessions as one user may.
    User,
    /// There are as many sessions as there may be.
    Total,
}

#[derive(Debug, Default)]
struct Counts {
    taken: usize,
    by_user: HashMap<UserId, usize>,
}

impl Caps {
    pub(crate) fn new(total: usize, per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            total,
            per_user,
            counts: Mutex::default(),
        })
    }

    /// Takes a slot for `user`.
    pub(crate) fn take(self: &Arc<Self>, user: &UserId) -> Result<Slot, Full> {
        let mut counts = self.counts();
        let held = counts.by_user.get(user).copied().unwrap_or(0);
        if held >= self.per_user {
            return Err(Full::User);
        }
        if counts.taken >= self.total {
            return Err(Full::Total);
        }
        counts.taken += 1;
        counts.by_user.insert(user.clone(), held + 1);
        Ok(Slot {
            caps: Arc::clone(self),
            user: user.clone(),
        })
    }

    /// How many slots are taken.
    pub(crate) fn taken(&self) -> usize {
        self.counts().taken
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while the lock is held, and the counts would still be right.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.caps.counts();
        counts.taken = counts.taken.saturating_sub(1);
        if let Some(held) = counts.by_user.get_mut(&self.user) {
            *held -= 1;
            if *held == 0 {
                counts.by_user.remove(&self.user);
            }
        }
    }
}

impl Hold {
    pub(crate) fn new(slot: Slot, gone: DropGuard) -> Arc<Self> {
        Arc::new(Self {
            _slot: slot,
            _gone: gone,
        })
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::permutations::once;

    fn user(name: &str) -> UserId {
        UserId(name.into())
    }

    #[test]
    fn the_users_own_cap_is_told_before_the_total() {
        once(|| {
            let caps = Caps::new(2, 1);
            let _a = caps.take(&user("a")).unwrap();
            let _b = caps.take(&user("b")).unwrap();
            assert_eq!(caps.take(&user("a")).unwrap_err(), Full::User);
            assert_eq!(caps.take(&user("c")).unwrap_err(), Full::Total);
        });
    }

    #[test]
    fn a_dropped_slot_is_free_again_and_leaves_no_count_behind() {
        once(|| {
            let caps = Caps::new(1, 1);
            for _ in 0..3 {
                let slot = caps.take(&user("a")).unwrap();
                assert_eq!(caps.taken(), 1);
                drop(slot);
            }
            assert_eq!(caps.taken(), 0);
            assert!(caps.counts().by_user.is_empty());
        });
    }
}
