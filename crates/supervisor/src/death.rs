//! Death with the parent: a child does not outlive this process, however this process ends.
//!
//! The kernel sends the child SIGKILL when the *thread* that forked it ends (`PR_SET_PDEATHSIG`), which is why
//! all forks happen on the one thread of [`forker`](crate::forker). Two limits belong to the mechanism: it is
//! not passed on to the child's own children, and a program that gains privileges on exec (set-user-ID, file
//! capabilities) loses it.
#![expect(
    unsafe_code,
    reason = "only code that runs between fork and exec can set a death signal"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes `command` start a child that dies with the thread that starts it.
pub(crate) fn with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: the closure runs in the child after fork, where only async-signal-safe functions may be called,
    // since other threads of this process may have held any lock at the moment of the fork. `bind` makes two
    // system calls, prctl and getppid, through rustix, which issues them directly or through thin libc
    // wrappers without locks. It allocates nothing (its errors are bare numbers), takes no lock, touches no
    // memory but its own stack and the captured `Pid`, which is `Copy`, and cannot panic.
    unsafe {
        command.pre_exec(move || bind(parent));
    }
}

/// Runs in the child, between fork and exec.
fn bind(parent: Pid) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the parent died before the line above, its death went unnoticed and the child already belongs to
    // someone else. Asked after it, the question has only two answers: it still lives, or we know.
    if getppid() == Some(parent) {
        Ok(())
    } else {
        Err(Errno::SRCH.into())
    }
}
