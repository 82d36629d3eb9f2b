//! What every child gets, settled once.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit};

use super::cgroup::{CgroupLimits, Cgroups};
use super::child_dir::ChildDirs;
use super::file_rules::{ChildPaths, FileRules, LandlockSupport};
use super::probe;
use super::report::{IsolationReport, Layer};
use super::setup::Capabilities;
use super::user_pool::UserPool;
use super::{Isolation, IsolationLimits, Sandbox};

/// Sandbox is made by it for each child, see [`IsolationPlan::room`].
#[derive(Debug)]
pub(crate) struct IsolationPlan {
    pub(super) no_new_privileges: bool,
    pub(super) capabilities: Capabilities,
    pub(super) files: Option<FileRules>,
    pub(super) directories: Option<ChildDirs>,
    pub(super) users: Option<UserPool>,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) limits: Vec<(Resource, Rlimit)>,
    report: IsolationReport,
}

impl IsolationPlan {
    /// Finds out what there is of what is asked for. `temporary` is where own directories go by default.
    ///
    /// # Errors
    ///
    /// If the thread that tries it does not start.
    pub(crate) fn new(isolation: &Isolation, limits: &IsolationLimits, temporary: Option<&OsStr>) -> io::Result<Self> {
        let mut report = IsolationReport::default();
        let support = LandlockSupport::of_kernel();
        let files = FileRules::new(&isolation.readable, &isolation.writable);
        let ruleset = match support.files {
            true => files.ruleset(&ChildPaths {
                program: Path::new("/"),
                args: &[],
                directory: None,
                certificates: &[],
            })?,
            false => None,
        };
        let tried = probe::try_all(ruleset)?;

        let no_new_privileges =
            isolation.no_new_privileges && report.enter(Layer::NoNewPrivileges, tried.no_new_privileges).is_some();
        let dropped = isolation.drop_capabilities && report.enter(Layer::Capabilities, tried.capabilities).is_some();
        let landlock = isolation.landlock && report.enter(Layer::Files, tried.landlock).is_some();
        if isolation.landlock {
            let scopes = if landlock && support.scopes {
                Ok(())
            } else {
                Err("needs Linux 6.12")
            };
            report.enter(Layer::Scopes, scopes);
        }
        let users = isolation.users.clone().and_then(|range| {
            let outcome = probe::other_users().map(|()| UserPool::new(range));
            report.enter(Layer::User, outcome)
        });
        let directories = if isolation.own_directory {
            let default = || temporary.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
            let parent = isolation.directory.clone().unwrap_or_else(default);
            report.enter(Layer::Directory, ChildDirs::new(&parent, users.is_some()))
        } else {
            None
        };
        let cgroups = isolation.cgroup.as_deref().and_then(|parent| {
            let limits = CgroupLimits {
                memory: limits.memory,
                processes: limits.processes,
            };
            report.enter(Layer::Cgroup, Cgroups::new(parent, limits))
        });
        if limits.memory.is_some() {
            let limited = cgroups.as_ref().is_some_and(Cgroups::memory_is_limited);
            let outcome = if limited {
                Ok(())
            } else {
                Err("needs a control group with the memory controller")
            };
            report.enter(Layer::Memory, outcome);
        }
        Ok(Self {
            no_new_privileges,
            capabilities: match (dropped, tried.bounding_set) {
                (false, _) => Capabilities::Kept,
                (true, false) => Capabilities::Dropped,
                (true, true) => Capabilities::DroppedForGood,
            },
            files: landlock.then_some(files),
            limits: resource_limits(limits, cgroups.is_some(), |resource| getrlimit(resource).maximum),
            directories,
            users,
            cgroups,
            report,
        })
    }

    pub(crate) fn report(&self) -> &IsolationReport {
        &self.report
    }

    pub(crate) fn has_directories(&self) -> bool {
        self.directories.is_some()
    }

    /// Whether children, and all that they start, can be told by `no_new_privs` from what others start.
    pub(crate) fn marks_children(&self) -> bool {
        self.report.has(Layer::NoNewPrivileges)
    }

    /// Makes room for one child. Does a dozen of file system calls; not for an asynchronous task.
    ///
    /// # Errors
    ///
    /// If the system refuses one of them, or users have run out.
    pub(crate) fn sandbox(&self) -> io::Result<Sandbox> {
        Sandbox::new(self)
    }
}

/// What to set. No limit is over what this process may set it to, given by `highest`: where that is lower, it is
/// the limit.
fn resource_limits(
    limits: &IsolationLimits,
    in_cgroup: bool,
    highest: impl Fn(Resource) -> Option<u64>,
) -> Vec<(Resource, Rlimit)> {
    let mut list = Vec::new();
    let mut add = |resource, soft: Option<u64>, hard: Option<u64>| {
        let within = |limit: u64| highest(resource).map_or(limit, |highest| limit.min(highest));
        if soft.is_some() {
            let limit = Rlimit {
                current: soft.map(within),
                maximum: hard.map(within),
            };
            list.push((resource, limit));
        }
    };
    // One byte and not none: the kernel ignores the limit if dumps go to a program, unless it is exactly this
    // (`do_coredump` of fs/coredump.c). No file is written for less than a page either way.
    add(Resource::Core, Some(1), Some(1));
    add(Resource::Nofile, limits.open_files, limits.open_files);
    add(Resource::As, limits.address_space, limits.address_space);
    // SIGXCPU at the first, SIGKILL at the second.
    let seconds = limits.cpu_time.map(|time| time.as_secs());
    add(Resource::Cpu, seconds, seconds.map(|seconds| seconds.saturating_add(1)));
    if !in_cgroup {
        add(Resource::Nproc, limits.processes, limits.processes);
    }
    list
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NO_LIMIT: fn(Resource) -> Option<u64> = |_| None;

    fn limit(list: &[(Resource, Rlimit)], wanted: Resource) -> Option<(Option<u64>, Option<u64>)> {
        let found = list.iter().find(|(resource, _)| *resource == wanted);
        found.map(|(_, limit)| (limit.current, limit.maximum))
    }

    #[test]
    fn core_dumps_are_off_whatever_the_limits() {
        let none = IsolationLimits {
            open_files: None,
            ..IsolationLimits::default()
        };
        let list = resource_limits(&none, false, NO_LIMIT);
        assert_eq!(list.len(), 1);
        assert_eq!(limit(&list, Resource::Core), Some((Some(1), Some(1))));
    }

    #[test]
    fn processes_are_counted_by_the_control_group_where_there_is_one() {
        let limits = IsolationLimits {
            processes: Some(10),
            ..IsolationLimits::default()
        };
        let counted = |in_cgroup| limit(&resource_limits(&limits, in_cgroup, NO_LIMIT), Resource::Nproc);
        assert_eq!(counted(false), Some((Some(10), Some(10))));
        assert_eq!(counted(true), None);
    }

    #[test]
    fn a_limit_over_that_of_this_process_is_that_of_this_process() {
        let limits = IsolationLimits {
            cpu_time: Some(Duration::from_secs(60)),
            ..IsolationLimits::default()
        };
        let list = resource_limits(&limits, false, |_| Some(60));
        assert_eq!(limit(&list, Resource::Nofile), Some((Some(60), Some(60))));
        assert_eq!(limit(&list, Resource::Cpu), Some((Some(60), Some(60))));
        assert_eq!(limit(&list, Resource::Core), Some((Some(1), Some(1))));
    }
}
