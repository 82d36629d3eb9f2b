//! A control group (version 2) for each child, below a directory that the operator gave to the broker.
//!
//! It holds a child and all of its descendants whatever they do, so it can end them at once and limit them
//! together. See the kernel's Documentation/admin-guide/cgroup-v2.rst.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::runtime_dir::RuntimeDir;

/// Where the groups of one supervisor's children lie.
#[derive(Debug)]
pub(super) struct Cgroups {
    runtime_dir: RuntimeDir,
    /// The name of the next one. Only ever counts up.
    next: AtomicU64,
    limits: CgroupLimits,
}

/// What all the processes of a child together may use.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CgroupLimits {
    /// In bytes.
    pub(super) memory: Option<u64>,
    pub(super) processes: Option<u64>,
}

/// The group of one child. Killed and removed when it is dropped.
#[derive(Debug)]
pub(super) struct Cgroup {
    path: PathBuf,
}

impl Cgroups {
    /// Clears up after supervisors that have gone and makes a place in `parent`.
    ///
    /// # Errors
    ///
    /// If it is no control group (version 2) in which this process may make others and end them.
    pub(super) fn new(parent: &Path, limits: CgroupLimits) -> io::Result<Self> {
        RuntimeDir::clear_abandoned(parent, clear);
        let runtime_dir = RuntimeDir::new(parent, 0o755)?;
        let groups = Self {
            runtime_dir,
            next: AtomicU64::new(0),
            limits,
        };
        for at in [parent, groups.runtime_dir.path()] {
            for controller in ["+memory", "+pids"] {
                // Where the controller is not there, `memory_is_limited` finds out.
                let _ = put(&at.join("cgroup.subtree_control"), controller);
            }
        }
        // Linux 5.14 or later, and only in a control group of version 2.
        let probe = groups.create()?;
        if fs::exists(probe.path.join("cgroup.kill"))? {
            Ok(groups)
        } else {
            Err(io::Error::new(ErrorKind::Unsupported, "there is no cgroup.kill"))
        }
    }

    /// Whether the memory of a group can be limited here.
    pub(super) fn memory_is_limited(&self) -> bool {
        self.create()
            .is_ok_and(|probe| fs::exists(probe.path.join("memory.max")).unwrap_or(false))
    }

    /// Makes the group of one child.
    ///
    /// # Errors
    ///
    /// If the system refuses it or one of its limits.
    pub(super) fn make(&self) -> io::Result<Cgroup> {
        let group = self.create()?;
        let limits = [("memory.max", self.limits.memory), ("pids.max", self.limits.processes)];
        for (file, limit) in limits {
            if let Some(limit) = limit {
                match put(&group.path.join(file), &limit.to_string()) {
                    // The controller is not there, which the report says.
                    Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                    result => result?,
                }
            }
        }
        Ok(group)
    }

    fn create(&self) -> io::Result<Cgroup> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.runtime_dir.path().join(name);
        fs::create_dir(&path)?;
        Ok(Cgroup { path })
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.runtime_dir.path());
    }
}

impl Cgroup {
    /// Where a process writes to join.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub(super) fn entrance(&self) -> io::Result<OwnedFd> {
        let procs = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?;
        Ok(procs.into())
    }

    /// Ends every process in it, at once.
    pub(super) fn kill(&self) {
        kill(&self.path);
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        kill(&self.path);
        // A process that hangs in the kernel is left to the next start.
        let _ = fs::remove_dir(&self.path);
    }
}

fn kill(group: &Path) {
    let _ = put(&group.join("cgroup.kill"), "1");
}

/// Writes to a file that exists. It must not be made: in a directory of another kind it would stay.
fn put(file: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Ends and removes the groups that a supervisor left.
fn clear(runtime_dir: &Path) {
    kill(runtime_dir);
    let groups = fs::read_dir(runtime_dir).into_iter().flatten().filter_map(Result::ok);
    for group in groups.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let _ = fs::remove_dir(group.path());
    }
    let _ = fs::remove_dir(runtime_dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_no_control_group_is_refused_and_left_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let error = Cgroups::new(parent.path(), CgroupLimits::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
