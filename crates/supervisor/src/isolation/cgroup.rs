//! A control group (version 2) for each child, below a directory that is delegated to the broker.
//!
//! A group contains a child and all of its descendants, whatever they do, so it can kill them at
//! once and limit them together. See the kernel's Documentation/admin-guide/cgroup-v2.rst.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::IsolationLimits;
use super::runtime_dir::RuntimeDir;

/// The groups of one supervisor's children.
#[derive(Debug)]
pub(super) struct Cgroups {
    directory: RuntimeDir,
    /// Limits of each group, by the file that sets them.
    limits: [(&'static str, Option<u64>); 2],
}

/// The group of one child. Killed and removed when it is dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Clears up after supervisors that are gone and creates a directory in `parent`. Fails if
    /// `parent` is not a control group (version 2) in which this process may create and kill
    /// others.
    pub(super) fn new(parent: &Path, limits: &IsolationLimits) -> io::Result<Self> {
        let groups = Self {
            directory: RuntimeDir::new(parent, 0o755, clear)?,
            limits: [("memory.max", limits.memory), ("pids.max", limits.processes)],
        };
        for at in [parent, groups.directory.path()] {
            for controller in ["+memory", "+pids"] {
                // If the controller is missing, `memory_is_limited` detects it.
                let _ = put(&at.join("cgroup.subtree_control"), controller);
            }
        }
        // Exists since Linux 5.14, and only in a control group of version 2.
        let probe = groups.create_unlimited()?;
        if fs::exists(probe.path.join("cgroup.kill"))? {
            Ok(groups)
        } else {
            Err(io::Error::new(ErrorKind::Unsupported, "there is no cgroup.kill"))
        }
    }

    /// True if the memory of a group can be limited here.
    pub(super) fn memory_is_limited(&self) -> bool {
        self.create_unlimited()
            .is_ok_and(|probe| fs::exists(probe.path.join("memory.max")).unwrap_or(false))
    }

    /// Creates the group of one child.
    pub(super) fn create(&self) -> io::Result<Cgroup> {
        let group = self.create_unlimited()?;
        for (file, limit) in self.limits {
            let Some(limit) = limit else { continue };
            match put(&group.path.join(file), &limit.to_string()) {
                // The controller is missing, which the report says.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                result => result?,
            }
        }
        Ok(group)
    }

    fn create_unlimited(&self) -> io::Result<Cgroup> {
        let path = self.directory.next_path();
        fs::create_dir(&path)?;
        Ok(Cgroup { path })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.directory.path());
    }
}

impl Cgroup {
    /// Opens the file to which a process writes to join the group.
    pub(super) fn open_procs(&self) -> io::Result<OwnedFd> {
        let procs = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
        Ok(procs.into())
    }

    /// Kills every process in it, at once.
    pub(super) fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        kill(&self.path);
        // If a process hangs in the kernel, the next start removes the group.
        let _ = fs::remove_dir(&self.path);
    }
}

fn kill(group: &Path) {
    let _ = put(&group.join("cgroup.kill"), "1");
}

/// Writes to an existing file. Never creates it: outside the control group file system it would
/// stay.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Kills and removes the groups that another supervisor left.
fn clear(abandoned: &Path) {
    kill(abandoned);
    let groups = fs::read_dir(abandoned).into_iter().flatten().filter_map(Result::ok);
    for group in groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let _ = fs::remove_dir(group.path());
    }
    let _ = fs::remove_dir(abandoned);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directory_that_is_not_a_control_group_is_rejected_and_unchanged() {
        let parent = tempfile::tempdir().unwrap();
        let error = Cgroups::new(parent.path(), &IsolationLimits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
