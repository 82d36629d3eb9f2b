//! What tasks meet at: locks and flags, the cell of a backend, the tasks themselves, and waits with a limit.
//!
//! In one place, so that the unit tests of this crate can put a scheduler of their own in the place of the machine's: it
//! decides at each of these points who goes on, and so tries out orders that hardly ever happen by themselves
//! (`permutations`). Everything else that is built, the integration tests of this crate too, has the real ones.

#[cfg(test)]
mod scheduled;

#[cfg(not(test))]
pub(crate) use {
    arc_swap::ArcSwapOption,
    std::sync::{
        Mutex, MutexGuard, Once, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize},
    },
    tokio::time::{sleep, timeout, timeout_at},
    tokio_util::task::TaskTracker as Tasks,
};

#[cfg(test)]
pub(crate) use scheduled::*;
