//! A directory of one supervisor, in which each child gets a directory of its own.
//!
//! It is locked for as long as the supervisor lives. The lock goes with the process, however that ends, so a
//! directory of this kind that can be locked belongs to nobody any more: whoever starts next finds and clears
//! it. What a child leaves behind is therefore gone at the latest at the next start.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What the names of such directories begin with.
const PREFIX: &str = "supervised-";

/// How many names are tried.
const MAX_ATTEMPTS: u32 = 1000;

/// A locked directory. It is not removed here: how that is done depends on the file system.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl RuntimeDir {
    /// Makes and locks a directory in `parent` that nobody had before.
    ///
    /// # Errors
    ///
    /// If it cannot be made there.
    pub(super) fn new(parent: &Path, mode: u32) -> io::Result<Self> {
        let pid = std::process::id();
        for n in 0..MAX_ATTEMPTS {
            let path = parent.join(format!("{PREFIX}{pid}-{n}"));
            match DirBuilder::new().mode(mode).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Between the two lines someone who clears up may take it for one that nobody owns.
            if let Some(lock) = lock(&path) {
                return Ok(Self { path, _lock: lock });
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name"))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the lock up, as the end of the process does.
    #[cfg(test)]
    pub(super) fn unlock(&self) {
        self._lock.unlock().unwrap();
    }

    /// Calls `clear` with every directory in `parent` whose supervisor has gone. They are locked meanwhile.
    pub(super) fn clear_abandoned(parent: &Path, clear: impl Fn(&Path)) {
        let Ok(entries) = fs::read_dir(parent) else { return };
        let own = rustix::process::geteuid().as_raw();
        for entry in entries.filter_map(Result::ok) {
            let path = entry.path();
            let named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
            // Of a directory that everyone may write to, only what is ours.
            let ours = named && fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == own);
            if ours && let Some(_lock) = lock(&path) {
                clear(&path);
            }
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
    fn only_what_nobody_owns_any_more_is_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let living = RuntimeDir::new(parent.path(), 0o700).unwrap();
        let dead = RuntimeDir::new(parent.path(), 0o700).unwrap();
        let dead_path = dead.path().to_owned();
        assert_ne!(living.path(), dead_path);
        drop(dead);
        fs::create_dir(parent.path().join("other")).unwrap();
        std::os::unix::fs::symlink("/", parent.path().join("supervised-link")).unwrap();

        let cleared = std::cell::RefCell::new(Vec::new());
        RuntimeDir::clear_abandoned(parent.path(), |path| cleared.borrow_mut().push(path.to_owned()));
        assert_eq!(cleared.into_inner(), [dead_path]);
    }

    #[test]
    fn a_parent_that_does_not_exist_is_an_error() {
        assert!(RuntimeDir::new(Path::new("/no/such/directory"), 0o700).is_err());
    }
}
