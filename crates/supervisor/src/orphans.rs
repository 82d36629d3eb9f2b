//! Processes that a child left behind, wherever they went.
//!
//! A descendant that leaves the child's process group cannot be reached through the group. But the kernel gives
//! every orphan a new parent, and both the child and this process are subreapers (`PR_SET_CHILD_SUBREAPER`,
//! prctl(2)): as long as the child lives its orphans become *its* children, and in the moment in which it ends
//! all that it had become *ours*, before its end can be seen. So a process that is our child, that is no child
//! which we started, and that descends from one of those, is an orphan of a child that has ended. It is killed
//! and reaped, which hands us its own children, until there are none.
//!
//! What must never be touched are processes that someone else in this program started. They are told apart by
//! two marks that a process cannot shed, and that none of theirs has: our children begin sessions of their own,
//! of which nothing that they start can get back into ours (setsid(2)), and they have `no_new_privs` set, which
//! is inherited and irrevocable. Someone else's process would have to do both to be mistaken. (Without
//! `no_new_privs` by configuration only the first mark is left.)
//!
//! A child must not be mistaken either. All forks, all reaping of children and all looking for orphans exclude
//! each other through [`CHILDREN`], in all supervisors of the process: whoever looks sees each child on the list,
//! and while it looks no number passes to another process.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, set_child_subreaper, waitid, waitpid,
};

/// The numbers of all children that were started and not yet reaped. Only held by threads that may wait: a fork
/// goes on under it. A set is whole after every single operation, so a panic of a holder leaves it usable.
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Where `/proc/PID/stat` has the parent and the session, counted from behind the name.
const PARENT: usize = 1;
const SESSION: usize = 3;

/// Makes this process the one that orphans come to.
///
/// # Errors
///
/// If the kernel refuses it.
pub(crate) fn adopt() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Starts a child and puts it on the list.
///
/// # Errors
///
/// Those of `start`.
pub(crate) fn start<E>(start: impl FnOnce() -> Result<(Pid, OwnedFd), E>) -> Result<(Pid, OwnedFd), E> {
    let mut leaders = leaders();
    let (pid, pidfd) = start()?;
    leaders.insert(pid.as_raw_nonzero().get());
    Ok((pid, pidfd))
}

/// Reaps a child that has ended, or that ends soon.
///
/// # Errors
///
/// If something else in this process has reaped it.
pub(crate) fn reap(child: Pid) -> io::Result<ExitStatus> {
    let mut leaders = leaders();
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    leaders.remove(&child.as_raw_nonzero().get());
    let (_, status) = status?.ok_or(Errno::CHILD)?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

/// Takes a child off the list that was killed and does not end. When it does, it is found as orphans are.
pub(crate) fn abandon(child: Pid) {
    leaders().remove(&child.as_raw_nonzero().get());
}

/// Kills and reaps the orphans that there are now, and tells which there were. Each may have had children that
/// are orphans only now: none are left when it finds none. With `marked`, only those that have `no_new_privs`.
pub(crate) fn sweep(no_new_privs: bool) -> BTreeSet<i32> {
    let leaders = leaders();
    let mut found = BTreeSet::new();
    for pid in children().into_iter().filter_map(Pid::from_raw) {
        if leaders.contains(&pid.as_raw_nonzero().get()) || !descends_from_a_child(pid, no_new_privs) {
            continue;
        }
        found.insert(pid.as_raw_nonzero().get());
        // The number cannot be a stranger's: it is our child, and nobody but us reaps it.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    found
}

fn leaders() -> MutexGuard<'static, BTreeSet<i32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descends_from_a_child(pid: Pid, no_new_privs: bool) -> bool {
    let elsewhere = matches!((session(pid), session(getpid())), (Some(theirs), Some(ours)) if theirs != ours);
    elsewhere && (!no_new_privs || has_mark(pid))
}

/// The session of a process: 0 if it began outside of our PID namespace, as that of a program which a container
/// runtime puts into a container may. That is ours then; a child's is never 0, since it begins its own. (getsid(2)
/// would tell the same, but safe wrappers of it take 0 for impossible.)
fn session(pid: Pid) -> Option<i32> {
    field(&stat(pid.as_raw_nonzero().get())?, SESSION)
}

/// Whether `no_new_privs` is set (proc_pid_status(5)). Zombies have it still.
fn has_mark(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| {
        status
            .lines()
            .any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
    })
}

/// The numbers of all children of this process, zombies included.
///
/// The kernel has a list for each thread (proc_tid_children(5)). It is reliable as long as no child is reaped
/// meanwhile, and none of ours is. Orphans are given to the first thread, which lives as long as the process.
fn children() -> Vec<i32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else {
        return Vec::new();
    };
    let lists = threads
        .filter_map(Result::ok)
        .map(|thread| fs::read_to_string(thread.path().join("children")));
    let mut found = Vec::new();
    let mut any = false;
    for list in lists.filter_map(Result::ok) {
        any = true;
        found.extend(list.split_whitespace().filter_map(|number| number.parse::<i32>().ok()));
    }
    // A kernel may be built without these lists.
    if any { found } else { children_by_search() }
}

/// The same by looking at every process of the machine.
fn children_by_search() -> Vec<i32> {
    let own = getpid().as_raw_nonzero().get();
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| stat(*pid).and_then(|stat| field(&stat, PARENT)) == Some(own))
        .collect()
}

fn stat(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/stat")).ok()
}

/// Reads a field of the line in `/proc/PID/stat` (proc_pid_stat(5)): `pid (name) state ppid pgrp session ..`. The
/// name may contain anything, parentheses included, so the fields are counted from its last one.
fn field(stat: &str, index: usize) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        assert_eq!(field("7 (sh) S 5 6 9 0 -1", PARENT), Some(5));
        assert_eq!(field("7 (a) Z 1 (b) S 5 6 9", PARENT), Some(5));
        assert_eq!(field("7 (a) Z 1 (b) S 5 6 9", SESSION), Some(9));
        assert_eq!(field("no process", PARENT), None);
    }

    #[test]
    fn this_process_is_no_orphan() {
        assert!(!descends_from_a_child(getpid(), false));
    }
}
