//! The isolation plan: the layers that every child gets, determined once.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit};

use super::cgroup::Cgroups;
use super::child_dir::ChildDirs;
use super::child_users::{self, ExpectedProgram};
use super::file_rules::{self, ChildPaths};
use super::landlock_rules::LandlockRules;
use super::network_rules::NetworkRules;
use super::probe;
use super::report::{IsolationReport, Layer};
use super::system_calls::SystemCallFilter;
use super::user_pool::UserPool;
use super::{Isolation, IsolationLimits};

/// The layers that every child gets. [`Sandbox::new`](super::Sandbox::new) applies it to one child.
#[derive(Debug)]
pub(crate) struct IsolationPlan {
    pub(crate) report: IsolationReport,
    pub(super) no_new_privileges: bool,
    pub(super) drop_capabilities: bool,
    pub(super) drop_bounding_set: bool,
    pub(super) landlock: Option<LandlockRules>,
    pub(super) system_calls: Option<Arc<SystemCallFilter>>,
    pub(super) directories: Option<ChildDirs>,
    pub(super) users: Option<UserPool>,
    pub(super) cgroups: Option<Cgroups>,
    pub(super) limits: Vec<(Resource, Rlimit)>,
}

impl IsolationPlan {
    /// Probes which of the requested layers are available. `temporary` is the default parent of
    /// private directories; `program` is that of the children to come, if known.
    pub(crate) fn new(
        isolation: &Isolation,
        limits: &IsolationLimits,
        temporary: Option<&OsStr>,
        program: Option<&ExpectedProgram<'_>>,
    ) -> io::Result<Self> {
        let mut report = IsolationReport::default();
        let rules = LandlockRules::new(isolation);
        let nothing = ChildPaths {
            program: Path::new("/"),
            args: &[],
            directory: None,
            variables: &BTreeMap::new(),
        };
        let ruleset = rules.as_ref().map(|rules| rules.ruleset(&nothing)).transpose()?;
        let system_calls = SystemCallFilter::new().map(Arc::new);
        let probed = probe::try_all(ruleset.flatten(), system_calls.clone().ok())?;

        let no_new_privileges = isolation.no_new_privileges
            && report
                .record(Layer::NoNewPrivileges, probed.no_new_privileges)
                .is_some();
        let drop_capabilities =
            isolation.drop_capabilities && report.record(Layer::Capabilities, probed.capabilities).is_some();
        if isolation.landlock {
            report.record(Layer::Files, probed.landlock);
            let scopes = probed.landlock.is_ok() && file_rules::scopes_are_supported();
            report.record(Layer::Scopes, scopes.then_some(()).ok_or("needs Linux 6.12"));
        }
        if isolation.network {
            let network = probed.landlock.is_ok() && NetworkRules::are_supported();
            report.record(Layer::Network, network.then_some(()).ok_or("needs Linux 6.7"));
        }
        let system_calls = if isolation.seccomp {
            let installed = |filter| probed.system_calls.map(|()| filter).map_err(|error| error.to_string());
            report.record(Layer::SystemCalls, system_calls.and_then(installed))
        } else {
            None
        };
        let default = || temporary.map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
        let parent = isolation.directory.clone().unwrap_or_else(default);
        let users = child_users::choose(isolation, &parent, program)?;
        let users = users.and_then(|users| report.record(Layer::User, users));
        let directories = if isolation.own_directory {
            report.record(Layer::Directory, ChildDirs::new(&parent, users.is_some()))
        } else {
            None
        };
        let cgroups = isolation.cgroup.as_deref();
        let cgroups = cgroups.and_then(|parent| report.record(Layer::Cgroup, Cgroups::new(parent, limits)));
        if limits.memory.is_some() {
            let limited = cgroups.as_ref().filter(|cgroups| cgroups.memory_is_limited());
            let limited = limited.ok_or("needs a control group with the memory controller");
            report.record(Layer::Memory, limited);
        }
        Ok(Self {
            report,
            no_new_privileges,
            drop_capabilities,
            drop_bounding_set: drop_capabilities && probed.bounding_set,
            landlock: rules.filter(|_| probed.landlock.is_ok()),
            limits: resource_limits(limits, cgroups.is_some(), |resource| getrlimit(resource).maximum),
            system_calls,
            directories,
            users,
            cgroups,
        })
    }

    /// True if `no_new_privs` distinguishes children and their descendants from other processes.
    pub(crate) fn marks_children(&self) -> bool {
        self.report.has(Layer::NoNewPrivileges)
    }
}

/// The limits to set. Each is capped at `highest`, the maximum that this process may set.
fn resource_limits(
    limits: &IsolationLimits,
    in_cgroup: bool,
    highest: impl Fn(Resource) -> Option<u64>,
) -> Vec<(Resource, Rlimit)> {
    let mut list = Vec::new();
    let mut add = |resource, soft: Option<u64>, hard: Option<u64>| {
        let capped = |limit: u64| highest(resource).map_or(limit, |highest| limit.min(highest));
        if soft.is_some() {
            let limit = Rlimit {
                current: soft.map(capped),
                maximum: hard.map(capped),
            };
            list.push((resource, limit));
        }
    };
    // One byte and not zero: if core dumps go to a program, the kernel ignores every other limit
    // (`do_coredump` of fs/coredump.c). Below a page it writes no file either way.
    add(Resource::Core, Some(1), Some(1));
    add(Resource::Nofile, limits.open_files, limits.open_files);
    add(Resource::As, limits.address_space, limits.address_space);
    // SIGXCPU at the soft limit, SIGKILL at the hard one.
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
    fn core_dumps_are_off_for_any_limits() {
        let none = IsolationLimits {
            open_files: None,
            ..IsolationLimits::default()
        };
        let list = resource_limits(&none, false, NO_LIMIT);
        assert_eq!(list.len(), 1);
        assert_eq!(limit(&list, Resource::Core), Some((Some(1), Some(1))));
    }

    #[test]
    fn control_group_replaces_the_process_limit() {
        let limits = IsolationLimits {
            processes: Some(10),
            ..IsolationLimits::default()
        };
        let counted = |in_cgroup| limit(&resource_limits(&limits, in_cgroup, NO_LIMIT), Resource::Nproc);
        assert_eq!(counted(false), Some((Some(10), Some(10))));
        assert_eq!(counted(true), None);
    }

    #[test]
    fn limits_are_capped_at_those_of_this_process() {
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
