//! The resources that belong to one child while it lives.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::getpid;

use super::cgroup::Cgroup;
use super::child_dir::ChildDir;
use super::file_rules::ChildPaths;
use super::plan::IsolationPlan;
use super::setup::ChildSetup;
use super::user_pool::{UserLease, UserPool};

/// A directory, a user and a control group, as far as the plan has them. Its drop releases them. It
/// must outlive the last process of the child, and be dropped where blocking is allowed: a child
/// may leave many files in its directory.
#[derive(Debug)]
pub(crate) struct Sandbox {
    // Drops in this order: the user's number is free once nothing has it.
    cgroup: Option<Cgroup>,
    directory: Option<ChildDir>,
    user: Option<UserLease>,
}

impl Sandbox {
    /// Makes about a dozen file system calls, so it blocks.
    /// Fails if the system refuses one of them, or no user is free.
    pub(crate) fn new(plan: &IsolationPlan) -> io::Result<Self> {
        let user = plan.users.as_ref().map(UserPool::lease).transpose()?;
        let owner = user.as_ref().map(|user| user.number);
        Ok(Self {
            cgroup: plan.cgroups.as_ref().map(|groups| groups.create()).transpose()?,
            directory: plan.directories.as_ref().map(|all| all.create(owner)).transpose()?,
            user,
        })
    }

    /// The child's working directory.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.directory.as_ref().map(ChildDir::path)
    }

    /// Writes a file that only this child can read, and returns its path.
    /// Fails if the child has no directory, or the system refuses it.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
        let none = || io::Error::other("the child has no directory of its own");
        self.directory.as_ref().ok_or_else(none)?.write(name, contents)
    }

    /// Kills all processes in the control group, if there is one.
    pub(crate) fn kill_all(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Removes the directory if the child left it empty. Returns whether the drop is now quick.
    pub(crate) fn remove_if_empty(&self) -> bool {
        self.path().is_none_or(|path| std::fs::remove_dir(path).is_ok())
    }

    /// The setup that the child performs on itself.
    pub(crate) fn setup(
        &self,
        plan: &IsolationPlan,
        program: &Path,
        args: &[OsString],
        variables: &BTreeMap<OsString, OsString>,
        kept: Vec<OwnedFd>,
    ) -> io::Result<ChildSetup> {
        let paths = ChildPaths {
            program,
            args,
            directory: self.path(),
            variables,
        };
        let ruleset = plan.landlock.as_ref().map(|rules| rules.ruleset(&paths)).transpose()?;
        Ok(ChildSetup {
            parent: getpid(),
            cgroup: self.cgroup.as_ref().map(Cgroup::open_procs).transpose()?,
            limits: plan.limits.clone(),
            kept,
            drop_capabilities: plan.drop_capabilities,
            drop_bounding_set: plan.drop_bounding_set,
            user: self.user.as_ref().map(|user| user.number),
            no_new_privileges: plan.no_new_privileges,
            ruleset: ruleset.flatten(),
            system_calls: plan.system_calls.clone(),
        })
    }
}
