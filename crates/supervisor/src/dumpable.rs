//! The flag of this process that permits its user to trace and dump it (PR_SET_DUMPABLE, prctl(2)).
//!
//! The kernel clears it when a thread changes its user, also that of a child that shares the memory
//! of this process (`commit_creds` of kernel/cred.c).

use std::sync::{Mutex, PoisonError};

use rustix::process::{dumpable_behavior, set_dumpable_behavior};

/// Held while the flag may be cleared: it must not be read then to be restored later.
static CHANGING: Mutex<()> = Mutex::new(());

/// Runs `change`, which may clear the flag, and restores it.
pub(crate) fn preserved<T>(change: impl FnOnce() -> T) -> T {
    let _changing = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = dumpable_behavior();
    let result = change();
    if let Ok(before) = before {
        let _ = set_dumpable_behavior(before);
    }
    result
}
