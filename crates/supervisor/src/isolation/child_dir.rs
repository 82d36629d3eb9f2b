//! A child's own working directory: empty at its start, gone after its end.
//!
//! It lies in the [`RuntimeDir`] of its supervisor, and nobody but the child's user may enter it. It is also what
//! `HOME` and `TMPDIR` name, so that what programs keep for the next time is kept by no one, and found by no
//! other user's child.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::remove_tree::remove_tree;
use super::runtime_dir::RuntimeDir;

/// Where the directories of one supervisor's children lie. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct ChildDirs {
    runtime_dir: RuntimeDir,
    /// The name of the next one. Only ever counts up.
    next: AtomicU64,
}

/// The directory of one child. Removed, with all that is in it, when it is dropped.
#[derive(Debug)]
pub(super) struct ChildDir {
    path: PathBuf,
    owner: Option<u32>,
}

impl ChildDirs {
    /// Clears up after supervisors that have gone and makes a place in `parent`. With `passable`, other users
    /// may pass through it to a directory that is theirs.
    ///
    /// # Errors
    ///
    /// If there cannot be one in `parent`.
    pub(super) fn new(parent: &Path, passable: bool) -> io::Result<Self> {
        let parent = std::path::absolute(parent)?;
        RuntimeDir::clear_abandoned(&parent, remove);
        Ok(Self {
            runtime_dir: RuntimeDir::new(&parent, if passable { 0o711 } else { 0o700 })?,
            next: AtomicU64::new(0),
        })
    }

    /// Makes the directory of one child, which belongs to `owner` if there is one.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub(super) fn make(&self, owner: Option<u32>) -> io::Result<ChildDir> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let path = self.runtime_dir.path().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        // From here on its drop removes it.
        let directory = ChildDir { path, owner };
        directory.hand_over(&directory.path)?;
        Ok(directory)
    }
}

impl Drop for ChildDirs {
    fn drop(&mut self) {
        remove(self.runtime_dir.path());
    }
}

impl ChildDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the child's user can read.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(contents)?;
        self.hand_over(&path)?;
        Ok(path)
    }

    fn hand_over(&self, path: &Path) -> io::Result<()> {
        self.owner.map_or(Ok(()), |owner| chown(path, Some(owner), Some(owner)))
    }
}

impl Drop for ChildDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Removes a directory with all that is in it.
fn remove(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "a child's directory cannot be removed");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_is_private_and_removed_with_what_was_left_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let directories = ChildDirs::new(parent.path(), false).unwrap();
        let (one, two) = (directories.make(None).unwrap(), directories.make(None).unwrap());
        assert_ne!(one.path(), two.path());
        assert_eq!(mode(one.path()), 0o700);
        let secret = one.write("TOKEN", b"s3cr3t").unwrap();
        assert_eq!(mode(&secret), 0o600);
        assert_eq!(fs::read(&secret).unwrap(), b"s3cr3t");

        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && two.path().exists());
        drop((two, directories));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_dead_supervisor_left_is_removed_at_the_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = {
            let directories = ChildDirs::new(parent.path(), false).unwrap();
            let directory = directories.make(None).unwrap();
            directory.write("TOKEN", b"s3cr3t").unwrap();
            let path = directory.path().to_owned();
            // As after SIGKILL: nothing is dropped but the lock.
            std::mem::forget(directory);
            let directories = std::mem::ManuallyDrop::new(directories);
            directories.runtime_dir.unlock();
            path
        };
        let _next = ChildDirs::new(parent.path(), false).unwrap();
        assert!(!abandoned.exists());
    }
}
