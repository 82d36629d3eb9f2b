//! The directory of one supervisor, in which each child gets a subdirectory.
//!
//! It is locked while the supervisor lives. The lock ends with the process, however that ends, so a
//! directory that can be locked is abandoned; the next supervisor to start finds and clears it.
//! Files of children are therefore gone at the next start at the latest.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The prefix of the names of such directories.
const PREFIX: &str = "supervised-";

/// Maximum number of names to try.
const MAX_ATTEMPTS: u32 = 1000;

/// A locked directory. Its owner removes it, since that depends on the file system.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    /// Locked while it is open.
    _lock: File,
    /// The name of the next subdirectory. Only counts up.
    next: AtomicU64,
}

impl RuntimeDir {
    /// Creates and locks a new directory in `parent`. First calls `clear` with every directory in
    /// `parent` whose supervisor is gone, locked meanwhile.
    pub(super) fn new(parent: &Path, mode: u32, clear: impl Fn(&Path)) -> io::Result<Self> {
        clear_abandoned(parent, clear);
        let pid = std::process::id();
        for n in 0..MAX_ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{pid}-{n}"));
            match DirBuilder::new().mode(mode).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Before the lock, another supervisor may take the directory for an abandoned one.
            if let Some(lock) = lock(&path) {
                let next = AtomicU64::new(0);
                return Ok(Self {
                    path,
                    _lock: lock,
                    next,
                });
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new path in it, not used before.
    pub(super) fn next_path(&self) -> PathBuf {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        self.path.join(name)
    }

    /// Releases the lock, as the end of the process does.
    #[cfg(test)]
    pub(super) fn unlock(&self) {
        self._lock.unlock().unwrap();
    }
}

fn clear_abandoned(parent: &Path, clear: impl Fn(&Path)) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let own = rustix::process::geteuid().as_raw();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // In a directory that everyone may write to, touch only our own entries.
        let ours = named && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == own);
        if ours && let Some(_lock) = lock(&path) {
            clear(&path);
        }
    }
}

/// Locks the directory at `path`, if it is free and still there.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.try_lock().ok()?;
    let (locked, found) = (directory.metadata().ok()?, fs::symlink_metadata(path).ok()?);
    (locked.ino() == found.ino() && locked.dev() == found.dev()).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_without_an_owner_are_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let ignore = |_: &Path| {};
        let living = RuntimeDir::new(parent.path(), 0o700, ignore).unwrap();
        let dead = RuntimeDir::new(parent.path(), 0o700, ignore).unwrap();
        let dead_path = dead.path().to_owned();
        assert_ne!(living.path(), dead_path);
        drop(dead);
        fs::create_dir(parent.path().join("other")).unwrap();
        std::os::unix::fs::symlink("/", parent.path().join("supervised-link")).unwrap();

        let cleared = std::cell::RefCell::new(Vec::new());
        clear_abandoned(parent.path(), |path| cleared.borrow_mut().push(path.to_owned()));
        assert_eq!(cleared.into_inner(), [dead_path]);
    }

    #[test]
    fn missing_parent_is_an_error() {
        assert!(RuntimeDir::new(Path::new("/no/such/directory"), 0o700, |_| {}).is_err());
    }
}
