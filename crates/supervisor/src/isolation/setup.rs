//! The setup that a child performs on itself before its program runs.
//!
//! It runs where only system calls are allowed (see [`clone_exec`]): everything that a step needs
//! is prepared, and nothing is allocated, freed or locked. A failed step ends the start of the
//! child.
//!
//! The order matters: the session first; the control group; the descriptors; the bounding set,
//! while the capability to change it exists; the user, while the capability to switch exists; all
//! other capabilities; `no_new_privs`, which Landlock requires; Landlock, which may forbid the
//! steps above; the limits, which the steps above may exceed; the death signal, since the kernel
//! clears it when the user changes; and last the filter of system calls, which may deny any step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::process::{
    Gid, Pid, Resource, Rlimit, Signal, Uid, getpid, getppid, set_child_subreaper, set_parent_process_death_signal,
    setrlimit, setsid, umask,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::landlock_rules::ChildRuleset;
use super::system_calls::SystemCallFilter;
use crate::clone_exec;
use crate::setup_error::SetupStep;

/// The setup of one child.
#[derive(Debug)]
pub(crate) struct ChildSetup {
    /// The process that must still be the parent at the end.
    pub(crate) parent: Pid,
    /// `cgroup.procs` of the child's control group, open for writing.
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    /// Descriptors that the program inherits, besides the standard streams.
    pub(crate) kept: Vec<OwnedFd>,
    pub(crate) drop_capabilities: bool,
    /// True to empty the bounding set too, which needs CAP_SETPCAP. The set limits the capabilities
    /// that can be gained later; with `no_new_privs` none can.
    pub(crate) drop_bounding_set: bool,
    /// The user and group to switch to.
    pub(crate) user: Option<u32>,
    pub(crate) no_new_privileges: bool,
    /// Complete except for the child's own directory in `/proc`.
    pub(crate) ruleset: Option<ChildRuleset>,
    pub(super) system_calls: Option<Arc<SystemCallFilter>>,
}

impl ChildSetup {
    /// Performs all steps. Runs in the child.
    pub(crate) fn apply(&self) -> Result<(), (SetupStep, Errno)> {
        setsid().map_err(in_step(SetupStep::Session))?;
        // Orphans below the child become its children, and ours at the moment when it ends, not
        // before; see `orphans`.
        set_child_subreaper(Some(getpid())).map_err(in_step(SetupStep::Session))?;
        if let Some(procs) = &self.cgroup {
            rustix::io::write(procs, b"0").map_err(in_step(SetupStep::Cgroup))?;
        }
        umask(Mode::RWXG | Mode::RWXO);
        clone_exec::close_on_exec_from(3);
        for kept in &self.kept {
            rustix::io::fcntl_setfd(kept, FdFlags::empty()).map_err(in_step(SetupStep::Descriptors))?;
        }
        if self.drop_bounding_set {
            empty_bounding_set().map_err(in_step(SetupStep::Capabilities))?;
        }
        if let Some(user) = self.user {
            switch_user(user).map_err(in_step(SetupStep::User))?;
        }
        if self.drop_capabilities {
            drop_capabilities().map_err(in_step(SetupStep::Capabilities))?;
        }
        if self.no_new_privileges {
            set_no_new_privs(true).map_err(in_step(SetupStep::NoNewPrivileges))?;
        }
        if let Some(ruleset) = &self.ruleset {
            enforce_ruleset(ruleset).map_err(in_step(SetupStep::Landlock))?;
        }
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit).map_err(in_step(SetupStep::Limits))?;
        }
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(in_step(SetupStep::DeathSignal))?;
        // If the parent died before the line above, the child missed the signal and already has
        // another parent. If it dies after that line, the signal arrives.
        if getppid() != Some(self.parent) {
            return Err((SetupStep::Parent, Errno::SRCH));
        }
        if let Some(filter) = &self.system_calls {
            filter.install().map_err(in_step(SetupStep::SystemCalls))?;
        }
        Ok(())
    }
}

fn in_step(step: SetupStep) -> impl Fn(Errno) -> (SetupStep, Errno) {
    move |error| (step, error)
}

/// Empties the bounding set of the calling thread.
pub(super) fn empty_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The first number that the kernel does not know; it knows none above.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Empties the ambient, effective, permitted and inheritable sets of the calling thread.
pub(super) fn drop_capabilities() -> Result<(), Errno> {
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )
}

/// Switches to a user, with the group of the same number and no other group. The calls change the
/// calling thread, which is the only one here.
pub(super) fn switch_user(number: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Adds the process's own directory in `/proc`, which has no name before the process exists, to the
/// ruleset, and restricts the calling thread by it.
pub(super) fn enforce_ruleset(ruleset: &ChildRuleset) -> Result<(), Errno> {
    let descriptor = ruleset.descriptor.as_fd();
    if ruleset.files {
        allow_own_directory(descriptor)?;
    }
    clone_exec::restrict_self(descriptor)
}

fn allow_own_directory(ruleset: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::open(c"/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(own) => clone_exec::allow_beneath(ruleset, own.as_fd(), super::file_rules::READ_BITS),
        // There is no /proc to read.
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}
