//! What a child does to itself before its program runs, in an order that matters.
//!
//! Everything here runs where only system calls are allowed (see [`raw`]): what a step needs was made before, and
//! nothing is allocated, freed or locked. A step that fails ends the start of the child.
//!
//! The order: a session of its own first; the control group; the descriptors; the bounding set while there still
//! is the capability to change it; the user while there still is the one to become another; all other
//! capabilities; Landlock, which may refuse much of the above; the limits, of which the steps before need more;
//! and last the death signal, since the kernel forgets it when the user changes.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

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

use crate::clone_exec;

/// The steps of one child. Shows no descriptor and nothing secret.
#[derive(Debug)]
pub(crate) struct ChildSetup {
    /// The process that must still be the parent when all is done.
    pub(crate) parent: Pid,
    /// `cgroup.procs` of the child's control group, open for writing.
    pub(crate) cgroup: Option<OwnedFd>,
    pub(crate) limits: Vec<(Resource, Rlimit)>,
    /// Descriptors that the program is to find open, beside the standard streams.
    pub(crate) kept: Vec<OwnedFd>,
    pub(crate) capabilities: Capabilities,
    /// The user and group to become.
    pub(crate) user: Option<u32>,
    pub(crate) no_new_privileges: bool,
    /// A Landlock ruleset, complete but for what the child needs of its own `/proc`.
    pub(crate) ruleset: Option<OwnedFd>,
}

/// What becomes of the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capabilities {
    Kept,
    /// All sets are emptied but the bounding set, which only a process with CAP_SETPCAP may change. It decides
    /// what can be gained, and with `no_new_privs` nothing can.
    Dropped,
    /// All sets are emptied.
    DroppedForGood,
}

/// A step that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupStep {
    Session,
    Directory,
    Cgroup,
    Limits,
    Descriptors,
    Capabilities,
    User,
    NoNewPrivileges,
    Landlock,
    DeathSignal,
    /// Not a step that failed: the parent has gone meanwhile.
    Parent,
}

impl ChildSetup {
    /// Takes all of them. Runs in the child.
    ///
    /// # Errors
    ///
    /// The step that failed, and why.
    pub(crate) fn take(&self) -> Result<(), (SetupStep, Errno)> {
        setsid().map_err(SetupStep::Session.because())?;
        // Orphans below the child become its children, so that whatever it leaves behind comes to us in the moment
        // in which it ends, and not before; see `orphans`.
        set_child_subreaper(Some(getpid())).map_err(SetupStep::Session.because())?;
        if let Some(procs) = &self.cgroup {
            rustix::io::write(procs, b"0").map_err(SetupStep::Cgroup.because())?;
        }
        umask(Mode::RWXG | Mode::RWXO);
        clone_exec::close_all_from(3);
        for kept in &self.kept {
            rustix::io::fcntl_setfd(kept, FdFlags::empty()).map_err(SetupStep::Descriptors.because())?;
        }
        if self.capabilities == Capabilities::DroppedForGood {
            empty_bounding_set().map_err(SetupStep::Capabilities.because())?;
        }
        if let Some(user) = self.user {
            become_user(user).map_err(SetupStep::User.because())?;
        }
        if self.capabilities != Capabilities::Kept {
            drop_capabilities().map_err(SetupStep::Capabilities.because())?;
        }
        if self.no_new_privileges {
            set_no_new_privs(true).map_err(SetupStep::NoNewPrivileges.because())?;
        }
        if let Some(ruleset) = &self.ruleset {
            enforce(ruleset).map_err(SetupStep::Landlock.because())?;
        }
        for (resource, limit) in &self.limits {
            setrlimit(*resource, *limit).map_err(SetupStep::Limits.because())?;
        }
        set_parent_process_death_signal(Some(Signal::KILL)).map_err(SetupStep::DeathSignal.because())?;
        // If the parent died before the line above, its death went unnoticed and the child already belongs to
        // someone else. Asked after it, the question has only two answers: it still lives, or we know.
        if getppid() == Some(self.parent) {
            Ok(())
        } else {
            Err((SetupStep::Parent, Errno::SRCH))
        }
    }
}

impl SetupStep {
    /// Makes the reason of a failure into the failure.
    fn because(self) -> impl Fn(Errno) -> (Self, Errno) {
        move |reason| (self, reason)
    }
}

impl fmt::Display for SetupStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session => "a session of its own",
            Self::Directory => "its directory",
            Self::Cgroup => "its control group",
            Self::Limits => "resource limits",
            Self::Descriptors => "a descriptor",
            Self::Capabilities => "a state without capabilities",
            Self::User => "a user of its own",
            Self::NoNewPrivileges => "no_new_privs",
            Self::Landlock => "Landlock",
            Self::DeathSignal => "the parent-death signal",
            Self::Parent => "a parent that lives",
        })
    }
}

/// Empties the bounding set of the calling thread.
pub(super) fn empty_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // The first number that the kernel does not know; there are none above.
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

/// Becomes a user with the group of the same number and with no other group. The calls change the calling
/// thread, which is the only one here.
fn become_user(number: u32) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(number), Gid::from_raw(number));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Completes the ruleset by the process's own directory in `/proc`, which cannot be named before it exists, and
/// restricts the calling thread by it.
pub(super) fn enforce(ruleset: &OwnedFd) -> Result<(), Errno> {
    match rustix::fs::open(c"/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        Ok(own) => clone_exec::allow_beneath(ruleset.as_fd(), own.as_fd(), super::file_rules::READ_BITS)?,
        // There is no /proc to read.
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    clone_exec::restrict_self(ruleset.as_fd())
}
