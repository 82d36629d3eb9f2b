//! What belongs to one child for as long as it lives.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::getpid;

use super::cgroup::Cgroup;
use super::child_dir::ChildDir;
use super::file_rules::{self, ChildPaths};
use super::plan::IsolationPlan;
use super::setup::ChildSetup;
use super::user_pool::UserLease;

/// A directory, a user, a control group: whatever of these the plan gives. Taken back when it is dropped, which
/// must be after the last process of the child is gone, and not in an asynchronous task: a child may leave much
/// in its directory.
#[derive(Debug)]
pub(crate) struct Sandbox {
    // In the order in which they are dropped: the user's number is free when nothing has it any more.
    cgroup: Option<Cgroup>,
    directory: Option<ChildDir>,
    user: Option<UserLease>,
}

impl Sandbox {
    pub(super) fn new(plan: &IsolationPlan) -> io::Result<Self> {
        let none_left = || io::Error::from(rustix::io::Errno::AGAIN);
        let lease = |users: &super::user_pool::UserPool| users.lease().ok_or_else(none_left);
        let user = plan.users.as_ref().map(lease).transpose()?;
        let owner = user.as_ref().map(UserLease::number);
        Ok(Self {
            cgroup: plan.cgroups.as_ref().map(|groups| groups.make()).transpose()?,
            directory: plan.directories.as_ref().map(|all| all.make(owner)).transpose()?,
            user,
        })
    }

    /// Where the child is to work.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.directory.as_ref().map(ChildDir::path)
    }

    /// Writes a file that only this child can read, and gives its path.
    ///
    /// # Errors
    ///
    /// If there is no directory for it, or the system refuses it.
    pub(crate) fn write(&self, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
        let none = || io::Error::other("the child has no directory of its own");
        self.directory.as_ref().ok_or_else(none)?.write(name, contents)
    }

    /// Ends whatever is still alive in here, if there is a way to.
    pub(crate) fn end_all(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Removes the directory if the child left nothing in it; tells whether dropping the rest is a matter of no
    /// time.
    pub(crate) fn is_left_empty(&self) -> bool {
        self.path().is_none_or(|path| std::fs::remove_dir(path).is_ok())
    }

    /// What the child has to do to itself.
    ///
    /// # Errors
    ///
    /// If the system refuses something that they need.
    pub(crate) fn steps<'a>(
        &self,
        plan: &IsolationPlan,
        program: &Path,
        args: &[OsString],
        variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
        kept: Vec<OwnedFd>,
    ) -> io::Result<ChildSetup> {
        let certificates = file_rules::certificates(variables);
        let needs = ChildPaths {
            program,
            args,
            directory: self.path(),
            certificates: &certificates,
        };
        let ruleset = plan.files.as_ref().map(|files| files.ruleset(&needs)).transpose()?;
        Ok(ChildSetup {
            parent: getpid(),
            cgroup: self.cgroup.as_ref().map(Cgroup::entrance).transpose()?,
            limits: plan.limits.clone(),
            kept,
            capabilities: plan.capabilities,
            user: self.user.as_ref().map(UserLease::number),
            no_new_privileges: plan.no_new_privileges,
            ruleset: ruleset.flatten(),
        })
    }
}
