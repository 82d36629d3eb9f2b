//! A child's own working directory: empty at its start, removed after its end.
//!
//! It lies in the [`RuntimeDir`] of its supervisor, and only the child's user may enter it. `HOME`
//! and `TMPDIR` name it too, so files that programs keep for their next run neither last nor reach
//! another user's child.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::remove_tree::remove_tree;
use super::runtime_dir::RuntimeDir;

/// The directories of one supervisor's children. Removed when it is dropped.
#[derive(Debug)]
pub(super) struct ChildDirs(RuntimeDir);

/// The directory of one child. Removed, with its contents, when it is dropped.
#[derive(Debug)]
pub(super) struct ChildDir {
    path: PathBuf,
    owner: Option<u32>,
}

impl ChildDirs {
    /// Clears up after supervisors that are gone and creates a directory in `parent`. With
    /// `passable`, other users may pass through it to their own directories.
    pub(super) fn new(parent: &Path, passable: bool) -> io::Result<Self> {
        let mode = if passable { 0o711 } else { 0o700 };
        let directory = RuntimeDir::new(&std::path::absolute(parent)?, mode, remove)?;
        Ok(Self(directory))
    }

    /// Creates the directory of one child, owned by `owner` if given.
    pub(super) fn create(&self, owner: Option<u32>) -> io::Result<ChildDir> {
        let path = self.0.next_path();
        DirBuilder::new().mode(0o700).create(&path)?;
        // From here on its drop removes it.
        let directory = ChildDir { path, owner };
        directory.set_owner(&directory.path)?;
        Ok(directory)
    }
}

impl Drop for ChildDirs {
    fn drop(&mut self) {
        remove(self.0.path());
    }
}

impl ChildDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the child's user can read.
    pub(super) fn write(&self, name: &str, contents: &[u8]) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(contents)?;
        self.set_owner(&path)?;
        Ok(path)
    }

    fn set_owner(&self, path: &Path) -> io::Result<()> {
        self.owner.map_or(Ok(()), |owner| chown(path, Some(owner), Some(owner)))
    }
}

impl Drop for ChildDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(path = %path.display(), %error, "cannot remove the directory of a child");
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
    fn directory_is_private_and_removed_with_its_contents() {
        let parent = tempfile::tempdir().unwrap();
        let directories = ChildDirs::new(parent.path(), false).unwrap();
        let (one, two) = (directories.create(None).unwrap(), directories.create(None).unwrap());
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
    fn directories_of_a_dead_supervisor_are_removed_at_the_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = {
            let directories = ChildDirs::new(parent.path(), false).unwrap();
            let directory = directories.create(None).unwrap();
            directory.write("TOKEN", b"s3cr3t").unwrap();
            let path = directory.path().to_owned();
            // As after SIGKILL: only the lock is released.
            std::mem::forget(directory);
            let directories = std::mem::ManuallyDrop::new(directories);
            directories.0.unlock();
            path
        };
        let _next = ChildDirs::new(parent.path(), false).unwrap();
        assert!(!abandoned.exists());
    }
}
