//! Isolation of children from the machine, from this process and from each other.
//!
//! It has several independent layers: no way to gain privileges, no capabilities, an allow-list of
//! files and of TCP ports, a filter of system calls, a private directory, limits, a private user
//! where that works, and, if the operator provides for it, a private control group. A probe finds
//! the layers that the machine supports once, and logs them ([`IsolationReport`]). Each layer found
//! is then required of every child: if it fails for one, that child does not start.

mod cgroup;
mod child_dir;
mod child_users;
mod file_rules;
mod landlock_rules;
mod network_rules;
mod plan;
mod probe;
mod remove_tree;
mod report;
mod runtime_dir;
mod sandbox;
mod setup;
mod system_calls;
mod user_pool;
mod user_trial;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use file_rules::DEFAULT_READABLE;
pub use report::{IsolationReport, Layer, MissingLayer};

pub(crate) use child_users::ExpectedProgram;
pub(crate) use plan::IsolationPlan;
pub(crate) use sandbox::Sandbox;
pub(crate) use setup::ChildSetup;

/// The requested layers. The default is every layer that needs nothing from the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// True if the supervisor refuses to start if a requested layer is not available. Otherwise it
    /// logs a warning. Off by default.
    pub required: bool,
    /// Children and their descendants gain no privileges (`no_new_privs`).
    pub no_new_privileges: bool,
    /// Children have no capabilities, even as root.
    pub drop_capabilities: bool,
    /// Landlock: an allow-list of files; no signals to, no abstract-socket connections to, and no
    /// tracing of outside processes. Needs [`no_new_privileges`](Self::no_new_privileges).
    pub landlock: bool,
    /// Landlock: children connect by TCP only to [`connect_ports`](Self::connect_ports), and bind
    /// no port. Needs [`no_new_privileges`](Self::no_new_privileges).
    pub network: bool,
    /// The TCP ports to which children may connect, whatever the host. None by default.
    pub connect_ports: Vec<u16>,
    /// Seccomp: system calls that affect other processes, create namespaces or mounts, or reach
    /// seldom used parts of the kernel fail. Needs
    /// [`no_new_privileges`](Self::no_new_privileges).
    pub seccomp: bool,
    /// Files and directories that children may read and execute beyond [`DEFAULT_READABLE`], the
    /// program, the files that its arguments name by an absolute path, and the certificates that
    /// its environment names.
    pub readable: Vec<PathBuf>,
    /// Files and directories that children may read and change, but not execute, beyond their own
    /// directory.
    pub writable: Vec<PathBuf>,
    /// Each child gets an empty working directory, which `HOME` and `TMPDIR` name too. Without it
    /// children work in `/`.
    pub own_directory: bool,
    /// The parent of these directories. The default is the `TMPDIR` of the configured environment,
    /// or `/tmp`.
    pub directory: Option<PathBuf>,
    /// Each child gets its own user and group.
    pub users: ChildUsers,
    /// A directory of the control group file system (version 2) that is delegated to this process:
    /// each child gets a group in it. Off by default.
    pub cgroup: Option<PathBuf>,
}

/// The users that children run as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChildUsers {
    /// Each child has its own, from a range that common allocators do not use, if this process has
    /// the capabilities to start processes as other users, and if such a user can execute
    /// [`Config::program`](crate::Config::program) and access the paths that the configuration
    /// names. If it cannot, or if the program is missing, the layer is reported as missing.
    #[default]
    Auto,
    /// Each child has its own from this range, which nothing else may use. Needs root.
    Range(RangeInclusive<u32>),
    /// Children run as the user of this process.
    Off,
}

/// Resource limits of a child. For `None`, the child inherits the limit of this process. Core dumps
/// are always off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationLimits {
    /// Open descriptors of each process (RLIMIT_NOFILE). The default is 1,024.
    pub open_files: Option<u64>,
    /// Address space of each process in bytes (RLIMIT_AS). Programs with a garbage collector
    /// reserve far more than they use. Off by default.
    pub address_space: Option<u64>,
    /// Processor time of each process (RLIMIT_CPU), in whole seconds. Off by default.
    pub cpu_time: Option<Duration>,
    /// Processes and threads: of the child's control group if it has one, else of its user
    /// (RLIMIT_NPROC, from which the user root is exempt). Off by default.
    pub processes: Option<u64>,
    /// Memory of all processes of the child together, in bytes. Needs a control group. Off by
    /// default.
    pub memory: Option<u64>,
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            required: false,
            no_new_privileges: true,
            drop_capabilities: true,
            landlock: true,
            network: true,
            connect_ports: Vec::new(),
            seccomp: true,
            readable: Vec::new(),
            writable: Vec::new(),
            own_directory: true,
            directory: None,
            users: ChildUsers::Auto,
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
    /// Calls `check` for each rule with whether the field breaks it, the field, and the rule.
    pub(crate) fn check(&self, mut check: impl FnMut(bool, &'static str, &'static str)) {
        let relative = |paths: &[PathBuf]| paths.iter().any(|path| !path.is_absolute());
        let bad_users = match &self.users {
            ChildUsers::Range(users) => users.is_empty() || *users.start() == 0 || *users.end() == u32::MAX,
            ChildUsers::Auto | ChildUsers::Off => false,
        };
        check(
            self.landlock && !self.no_new_privileges,
            "isolation.landlock",
            "needs isolation.no_new_privileges",
        );
        check(
            self.network && !self.no_new_privileges,
            "isolation.network",
            "needs isolation.no_new_privileges",
        );
        check(
            self.connect_ports.contains(&0),
            "isolation.connect_ports",
            "must not hold port 0",
        );
        check(
            self.seccomp && !self.no_new_privileges,
            "isolation.seccomp",
            "needs isolation.no_new_privileges",
        );
        check(bad_users, "isolation.users", "must be a range of user numbers above 0");
        check(
            relative(&self.readable),
            "isolation.readable",
            "must hold absolute paths",
        );
        check(
            relative(&self.writable),
            "isolation.writable",
            "must hold absolute paths",
        );
    }
}

impl IsolationLimits {
    /// As [`Isolation::check`].
    pub(crate) fn check(&self, mut check: impl FnMut(bool, &'static str, &'static str)) {
        let few_files = self.open_files.is_some_and(|files| files < 16);
        let short = self.cpu_time.is_some_and(|time| time < Duration::from_secs(1));
        check(few_files, "limits.open_files", "must be at least 16");
        check(short, "limits.cpu_time", "must be at least a second");
        for (field, limit) in [
            ("limits.address_space", self.address_space),
            ("limits.processes", self.processes),
            ("limits.memory", self.memory),
        ] {
            check(limit == Some(0), field, "must not be 0: no child could run");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        Isolation::default().check(|bad, field, _| assert!(!bad, "{field}"));
        IsolationLimits::default().check(|bad, field, _| assert!(!bad, "{field}"));
    }

    #[test]
    fn invalid_values_are_rejected() {
        let without = |change: fn(&mut Isolation)| {
            move |isolation: &mut Isolation| {
                isolation.no_new_privileges = false;
                (isolation.landlock, isolation.network, isolation.seccomp) = (false, false, false);
                change(isolation);
            }
        };
        for layer in [
            without(|isolation| isolation.landlock = true),
            without(|isolation| isolation.network = true),
            without(|isolation| isolation.seccomp = true),
        ] {
            let mut isolation = Isolation::default();
            layer(&mut isolation);
            let mut rejected = 0;
            isolation.check(|bad, _, _| rejected += usize::from(bad));
            assert_eq!(rejected, 1, "{isolation:?}");
        }
        let bad: [fn(&mut Isolation); 5] = [
            |isolation| isolation.connect_ports = vec![443, 0],
            |isolation| isolation.users = ChildUsers::Range(0..=10),
            #[expect(clippy::reversed_empty_ranges, reason = "the rejected value")]
            |isolation| isolation.users = ChildUsers::Range(20..=10),
            |isolation| isolation.readable = vec!["relative".into()],
            |isolation| isolation.writable = vec!["relative".into()],
        ];
        for change in bad {
            let mut isolation = Isolation::default();
            change(&mut isolation);
            let mut rejected = 0;
            isolation.check(|bad, _, _| rejected += usize::from(bad));
            assert_eq!(rejected, 1, "{isolation:?}");
        }
        let bad: [fn(&mut IsolationLimits); 3] = [
            |limits| limits.open_files = Some(3),
            |limits| limits.cpu_time = Some(Duration::from_millis(10)),
            |limits| limits.memory = Some(0),
        ];
        for change in bad {
            let mut limits = IsolationLimits::default();
            change(&mut limits);
            let mut rejected = 0;
            limits.check(|bad, _, _| rejected += usize::from(bad));
            assert_eq!(rejected, 1, "{limits:?}");
        }
    }
}
