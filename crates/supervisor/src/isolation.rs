//! What keeps children from the machine, from this process and from each other.
//!
//! Several layers, each of which holds alone: no privileges to gain, no capabilities, an allow-list of files, a
//! directory of its own, limits, and where the operator provides for it a user and a control group of its own.
//! What the machine has of them is found out once, by trying, and told ([`IsolationReport`]); what was found is then
//! required of every child: a layer that fails for one child fails its start, it is never left out silently.
//!
//! The network is not restricted: children are there to use it.

mod cgroup;
mod child_dir;
mod file_rules;
mod plan;
mod probe;
mod remove_tree;
mod report;
mod runtime_dir;
mod sandbox;
mod setup;
mod user_pool;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use file_rules::DEFAULT_READABLE;
pub use report::{IsolationReport, Layer, MissingLayer};

pub(crate) use plan::IsolationPlan;
pub(crate) use sandbox::Sandbox;
pub(crate) use setup::{ChildSetup, SetupStep};

/// Which layers there are. The default is all that need nothing from the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Whether a layer that is asked for and not to be had keeps the supervisor from starting. Otherwise it is
    /// reported in the log. Off by default.
    pub required: bool,
    /// Nothing that a child starts gains privileges (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Children have no capabilities, root's included.
    pub drop_capabilities: bool,
    /// Landlock: files by an allow-list, and no signals to, connections to abstract sockets of, or tracing of
    /// processes outside. ChildPaths [`no_new_privileges`](Self::no_new_privileges).
    pub landlock: bool,
    /// FileRules and directories that children may read and execute beyond [`DEFAULT_READABLE`], the program, the
    /// files that its arguments name by their whole path, and the certificates that its environment names.
    pub readable: Vec<PathBuf>,
    /// FileRules and directories that children may read and change, and not execute, beyond their own directory.
    pub writable: Vec<PathBuf>,
    /// Each child gets an empty working directory, which `HOME` and `TMPDIR` name too. Without it children work
    /// in `/`.
    pub own_directory: bool,
    /// Where these directories are made. The default is the `TMPDIR` of the configured environment, or `/tmp`.
    pub directory: Option<PathBuf>,
    /// Each child gets a user and group of its own from this range. ChildPaths root, and a range that nobody else
    /// uses. Off by default.
    pub users: Option<RangeInclusive<u32>>,
    /// A directory of the control group file system (version 2) that is given to this process: each child gets
    /// a group in it. Off by default.
    pub cgroup: Option<PathBuf>,
}

/// What a child may use. Where a limit is `None`, the child has that of this process. Core dumps are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationLimits {
    /// Open descriptors, for each process (RLIMIT_NOFILE). The default is 1,024.
    pub open_files: Option<u64>,
    /// Address space in bytes, for each process (RLIMIT_AS). Programs with a garbage collector reserve far more
    /// than they use. Off by default.
    pub address_space: Option<u64>,
    /// Processor time, for each process (RLIMIT_CPU), in whole seconds. Off by default.
    pub cpu_time: Option<Duration>,
    /// Processes and threads: of the child's control group if it has one, else of all that its user runs
    /// (RLIMIT_NPROC, from which the user root is exempt). Off by default.
    pub processes: Option<u64>,
    /// Memory in bytes, of all processes of the child together. ChildPaths a control group. Off by default.
    pub memory: Option<u64>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            required: false,
            no_new_privileges: true,
            drop_capabilities: true,
            landlock: true,
            readable: Vec::new(),
            writable: Vec::new(),
            own_directory: true,
            directory: None,
            users: None,
            cgroup: None,
        }
    }
}

impl Default for IsolationLimits {
    fn default() -> Self {
        Self {
            open_files: Some(1024),
            address_space: None,
            cpu_time: None,
            processes: None,
            memory: None,
        }
    }
}

impl Isolation {
    /// Calls `refuse` for each field: whether it is bad, which it is, and why it would be.
    pub(crate) fn check(&self, mut refuse: impl FnMut(bool, &'static str, &'static str)) {
        refuse(
            self.landlock && !self.no_new_privileges,
            "isolation.landlock",
            "needs isolation.no_new_privileges",
        );
        let users = self.users.as_ref();
        refuse(
            users.is_some_and(|users| users.is_empty() || *users.start() == 0 || *users.end() == u32::MAX),
            "isolation.users",
            "must be a range of user numbers above 0",
        );
        for (field, paths) in [
            ("isolation.readable", &self.readable),
            ("isolation.writable", &self.writable),
        ] {
            refuse(
                paths.iter().any(|path| !path.is_absolute()),
                field,
                "must hold whole paths",
            );
        }
    }
}

impl IsolationLimits {
    /// As [`Isolation::check`].
    pub(crate) fn check(&self, mut refuse: impl FnMut(bool, &'static str, &'static str)) {
        refuse(
            self.open_files.is_some_and(|files| files < 16),
            "limits.open_files",
            "must be at least 16",
        );
        refuse(
            self.cpu_time.is_some_and(|time| time < Duration::from_secs(1)),
            "limits.cpu_time",
            "must be at least a second",
        );
        for (field, limit) in [
            ("limits.address_space", self.address_space),
            ("limits.processes", self.processes),
            ("limits.memory", self.memory),
        ] {
            refuse(limit == Some(0), field, "must not be 0: no child would live");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Isolation::default().check(|bad, field, _| assert!(!bad, "{field}"));
        IsolationLimits::default().check(|bad, field, _| assert!(!bad, "{field}"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let bad: [fn(&mut Isolation); 5] = [
            |isolation| isolation.no_new_privileges = false,
            |isolation| isolation.users = Some(0..=10),
            #[expect(clippy::reversed_empty_ranges, reason = "what is refused")]
            |isolation| isolation.users = Some(20..=10),
            |isolation| isolation.readable = vec!["relative".into()],
            |isolation| isolation.writable = vec!["relative".into()],
        ];
        for change in bad {
            let mut isolation = Isolation::default();
            change(&mut isolation);
            let mut refused = 0;
            isolation.check(|bad, _, _| refused += usize::from(bad));
            assert_eq!(refused, 1, "{isolation:?}");
        }
        let bad: [fn(&mut IsolationLimits); 3] = [
            |limits| limits.open_files = Some(3),
            |limits| limits.cpu_time = Some(Duration::from_millis(10)),
            |limits| limits.memory = Some(0),
        ];
        for change in bad {
            let mut limits = IsolationLimits::default();
            change(&mut limits);
            let mut refused = 0;
            limits.check(|bad, _, _| refused += usize::from(bad));
            assert_eq!(refused, 1, "{limits:?}");
        }
    }
}
