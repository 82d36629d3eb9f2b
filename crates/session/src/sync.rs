//! Synchronization primitives: locks, flags, tracked tasks, and waits with a limit.
//!
//! They are imported from here so that the unit tests of this crate can replace them by those of a
//! scheduler, which decides at each of these points which task continues (`tests::permutations`).
//! Every other build has the real ones.

#[cfg(test)]
pub(crate) use crate::tests::scheduled::*;
#[cfg(not(test))]
pub(crate) use {
    std::sync::{
        Mutex, MutexGuard, Once, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize},
    },
    tokio::time::{sleep, sleep_until, timeout, timeout_at},
    tokio_util::task::TaskTracker as Tasks,
};

/// Locks a mutex. Poisoning is ignored: each change is whole. Of the code of an embedder only
/// methods run under a lock of this crate that return at once
/// ([`ports::Conversation`](crate::ports::Conversation)).
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
