//! Removing a directory with untrusted contents.
//!
//! A child may leave directories nested a hundred thousand deep, on which a recursion would exhaust
//! the stack or the descriptors, and directories without any permission. So the removal does not
//! recurse: it first moves nested directories to the top, and never has more than two open. It
//! looks names up in open directories and never follows links, so a process that still works in
//! there cannot redirect the removal.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};

/// Removes the directory at `path` with its contents. Succeeds if it does not exist.
pub(super) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match empty(path).and_then(|()| unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(path: &Path) -> Result<()> {
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    // Each round moves the second level to the top, so there are as many rounds as levels.
    loop {
        let mut found = false;
        for entry in Dir::read_from(&top)? {
            let entry = entry?;
            let name = entry.file_name();
            if is_self_or_parent(name) {
                continue;
            }
            found = true;
            if is_directory_after_unlink(top.as_fd(), name)? {
                flatten(top.as_fd(), name, &mut moved)?;
                unlinkat(&top, name, AtFlags::REMOVEDIR)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Empties the directory `name` of `top`: unlinks its files, and moves its directories to `top`.
fn flatten(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> Result<()> {
    let directory = open(top, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = entry.file_name();
        if !is_self_or_parent(inner) && is_directory_after_unlink(directory.as_fd(), inner)? {
            // Moving a directory needs permission to write to it.
            make_accessible(directory.as_fd(), inner);
            loop {
                *moved += 1;
                let lifted = format!(".lifted-{moved}");
                // Replaces an empty directory of that name, which is just as good.
                match renameat(&directory, inner, top, lifted.as_str()) {
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    result => break result?,
                }
            }
        }
    }
    Ok(())
}

/// Unlinks `name` unless it is a directory, and returns whether it is one.
fn is_directory_after_unlink(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        // Linux returns the first; POSIX specifies the second (unlink(2)).
        Err(Errno::ISDIR | Errno::PERM) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens a directory and makes it readable to its owner.
fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd> {
    make_accessible(at, name);
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Gives the owner all permissions. On failure, the operation that needs them fails.
fn make_accessible(at: BorrowedFd<'_>, name: impl rustix::path::Arg) {
    let _ = chmodat(at, name, Mode::RWXU, AtFlags::empty());
}

fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn tree_deeper_than_any_stack_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        fs::create_dir(&top).unwrap();
        let mut at = open(CWD, &top).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "deeper", Mode::RWXU).unwrap();
            at = open(at.as_fd(), c"deeper").unwrap();
        }
        drop(at);
        remove_tree(&top).unwrap();
        assert!(!top.exists());
        remove_tree(&top).unwrap();
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let (top, other) = (parent.path().join("top"), parent.path().join("other"));
        fs::create_dir_all(top.join("inner/empty")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "kept").unwrap();
        symlink(&other, top.join("link")).unwrap();
        symlink(&other, top.join("inner/link")).unwrap();
        remove_tree(&top).unwrap();
        assert!(!top.exists() && other.join("kept").exists());
    }

    #[test]
    fn directories_without_permissions_and_with_reserved_names_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let top = parent.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join(".lifted-1/x")).unwrap();
        fs::write(top.join(".lifted-2"), "").unwrap();
        for path in ["a/b/c", "a/b", "a"] {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&top).unwrap();
        assert!(!top.exists());
    }
}
