//! What belongs to one child for as long as it lives.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::getpid;

use super::cgroup::Cgroup;
use super::directory::Directory;
use super::files::{self, Needs};
use super::plan::Plan;
use super::steps::Steps;
use super::users::Lease;

/// A directory, a user, a control group: whatever of these the plan gives. Taken back when it is dropped, which
/// must be after the last process of the child is gone, and not in an asynchronous task: a child may leave much
/// in its directory.
#[derive(Debug)]
pub(crate) struct Room {
    // In the order in which they are dropped: the user's number is free when nothing has it any more.
    cgroup: Option<Cgroup>,
    directory: Option<Directory>,
    user: Option<Lease>,
}

impl Room {
    pub(super) fn new(plan: &Plan) -> io::Result<Self> {
        let none_left = || io::Error::from(rustix::io::Errno::AGAIN);
        let lease = |users: &super::users::Users| users.lease().ok_or_else(none_left);
        let user = plan.users.as_ref().map(lease).transpose()?;
        let owner = user.as_ref().map(Lease::number);
        Ok(Self {
            cgroup: plan.cgroups.as_ref().map(|groups| groups.make()).transpose()?,
            directory: plan.directories.as_ref().map(|all| all.make(owner)).transpose()?,
            user,
        })
    }

    /// Where the child is to work.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.directory.as_ref().map(Directory::path)
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
        plan: &Plan,
        program: &Path,
        args: &[OsString],
        variables: impl IntoIterator<Item = (&'a OsStr, &'a OsStr)>,
        kept: Vec<OwnedFd>,
    ) -> io::Result<Steps> {
        let certificates = files::certificates(variables);
        let needs = Needs {
            program,
            args,
            directory: self.path(),
            certificates: &certificates,
        };
        let ruleset = plan.files.as_ref().map(|files| files.ruleset(&needs)).transpose()?;
        Ok(Steps {
            parent: getpid(),
            cgroup: self.cgroup.as_ref().map(Cgroup::entrance).transpose()?,
            limits: plan.limits.clone(),
            kept,
            capabilities: plan.capabilities,
            user: self.user.as_ref().map(Lease::number),
            no_new_privileges: plan.no_new_privileges,
            ruleset: ruleset.flatten(),
        })
    }
}
