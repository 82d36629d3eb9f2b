//! Orphans: processes that a child left behind, in any process group or session.
//!
//! A descendant that leaves the child's process group cannot be signalled through the group. But
//! the kernel gives every orphan a new parent, and both the child and this process are subreapers
//! (`PR_SET_CHILD_SUBREAPER`, prctl(2)): while the child lives its orphans become *its* children,
//! and when it ends they all become *ours*, before its end is visible. So an orphan of an ended
//! child is a child of this process that the supervisor did not start, and that descends from one
//! that it did. The sweep kills and reaps it, which hands us its own children, until none is left.
//!
//! The sweep must never touch processes that other code in this program started. Orphans differ
//! from those by two marks that no process can shed: our children begin their own sessions, and
//! none of their descendants can return to ours (setsid(2)); and they have `no_new_privs` set,
//! which is inherited and irrevocable. Another process is mistaken for an orphan only if it has
//! both. (If the configuration disables `no_new_privs`, only the first mark remains.)
//!
//! The sweep must not take a child for an orphan either. All forks, all reaping of children and all
//! sweeps exclude each other through [`CHILDREN`], in all supervisors of the process: a sweep finds
//! every child in the set, and no pid is reused while it runs.

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

/// The pids of all children that were started and not yet reaped. Held during a fork, so only by
/// threads that may block. The set is consistent after every single operation, so a panic of a
/// holder leaves it usable.
static CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Indexes of the parent and the session in `/proc/PID/stat`, counted from behind the name.
const PARENT: usize = 1;
const SESSION: usize = 3;

/// Makes this process the new parent of orphaned descendants.
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(set_child_subreaper(Some(getpid()))?)
}

/// Starts a child with `start` and registers it.
pub(crate) fn spawn<E>(start: impl FnOnce() -> Result<(Pid, OwnedFd), E>) -> Result<(Pid, OwnedFd), E> {
    let mut children = children();
    let (pid, pidfd) = start()?;
    children.insert(number(pid));
    Ok((pid, pidfd))
}

/// Reaps a child that has ended or is about to end.
/// Fails if other code in this process has reaped it.
pub(crate) fn reap(child: Pid) -> io::Result<ExitStatus> {
    let mut children = children();
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            result => break result,
        }
    };
    children.remove(&number(child));
    let (_, status) = status?.ok_or(Errno::CHILD)?;
    Ok(ExitStatus::from_raw(status.as_raw()))
}

/// Unregisters a child that was killed and does not end. A later sweep reaps it as an orphan.
pub(crate) fn forget(child: Pid) {
    children().remove(&number(child));
}

/// Kills and reaps the current orphans and returns their pids. Their own children become orphans
/// only now, so repeat until the set is empty. With `no_new_privs`, an orphan must have that flag
/// set.
pub(crate) fn sweep(no_new_privs: bool) -> BTreeSet<i32> {
    let children = children();
    let mut found = BTreeSet::new();
    for pid in child_pids().into_iter().filter_map(Pid::from_raw) {
        if children.contains(&number(pid)) || !is_orphan(pid, no_new_privs) {
            continue;
        }
        found.insert(number(pid));
        // The pid cannot belong to another process: it is our child, and only we reap it.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    found
}

/// True if there is a child that was started and not yet reaped.
pub(crate) fn any_child() -> bool {
    !children().is_empty()
}

/// Reaps the orphans that have ended. Those that run belong to a child that runs, too.
pub(crate) fn reap_zombies(no_new_privs: bool) {
    let children = children();
    for pid in child_pids().into_iter().filter_map(Pid::from_raw) {
        if !children.contains(&number(pid)) && is_zombie(pid) && is_orphan(pid, no_new_privs) {
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

fn children() -> MutexGuard<'static, BTreeSet<i32>> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn is_orphan(pid: Pid, no_new_privs: bool) -> bool {
    let other_session = matches!((session(pid), session(getpid())), (Some(theirs), Some(ours)) if theirs != ours);
    other_session && (!no_new_privs || has_no_new_privs(pid))
}

/// True if the process has ended and nothing has waited for it.
fn is_zombie(pid: Pid) -> bool {
    stat(number(pid)).is_some_and(|stat| stat.rsplit_once(')').is_some_and(|(_, state)| state.starts_with(" Z")))
}

/// The session of a process. 0 if the session began outside our PID namespace, as for a program
/// that a container runtime puts into a container; only ours can be 0, since each child begins its
/// own. (The safe wrappers of getsid(2) reject 0 as impossible.)
fn session(pid: Pid) -> Option<i32> {
    field(&stat(number(pid))?, SESSION)
}

/// True if `no_new_privs` is set (proc_pid_status(5)). Zombies keep the flag.
fn has_no_new_privs(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| {
        status
            .lines()
            .any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
    })
}

/// The pids of all children of this process, zombies included.
///
/// The kernel has a list for each thread (proc_tid_children(5)). It is reliable while no child is
/// reaped, which the lock ensures. Orphans are given to the first thread, which lives as long as
/// the process.
fn child_pids() -> Vec<i32> {
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
    if any { found } else { child_pids_by_search() }
}

/// As [`child_pids`], by searching every process of the machine.
fn child_pids_by_search() -> Vec<i32> {
    let own = number(getpid());
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

/// Parses a field of `/proc/PID/stat` (proc_pid_stat(5)): `pid (name) state ppid pgrp session ..`.
/// The name may contain any character, parentheses included, so fields count from its last one.
fn field(stat: &str, index: usize) -> Option<i32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(index)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_fields_are_parsed_behind_any_process_name() {
        assert_eq!(field("7 (sh) S 5 6 9 0 -1", PARENT), Some(5));
        assert_eq!(field("7 (a) Z 1 (b) S 5 6 9", PARENT), Some(5));
        assert_eq!(field("7 (a) Z 1 (b) S 5 6 9", SESSION), Some(9));
        assert_eq!(field("no process", PARENT), None);
    }

    #[test]
    fn this_process_is_not_an_orphan() {
        assert!(!is_orphan(getpid(), false));
    }
}
