//! Removing a directory that a stranger filled.
//!
//! A child may leave directories nested a hundred thousand deep, which a recursion would answer by running out
//! of stack or of descriptors, and directories without any permission. So nothing recurses here: a directory
//! within a directory is moved to the top first, and only ever two are open. Names are looked up in open
//! directories and links are never followed, so that whoever should still be at work in there cannot send the
//! removal elsewhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, chmodat, openat, renameat, unlinkat};
use rustix::io::{Errno, Result};

/// Removes the directory at `path` and all that is in it. That it is gone already is no error.
pub(super) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match empty(path).and_then(|()| unlinkat(CWD, path, AtFlags::REMOVEDIR)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(path: &Path) -> Result<()> {
    let top = open(CWD, path)?;
    let mut moved = 0_u64;
    // Each round moves what is one level down to the top, and there are as many rounds as levels.
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
                lift(top.as_fd(), name, &mut moved)?;
                unlinkat(&top, name, AtFlags::REMOVEDIR)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Empties the directory `name` of `top`: unlinks its files, and moves its directories to `top`.
fn lift(top: BorrowedFd<'_>, name: &CStr, moved: &mut u64) -> Result<()> {
    let directory = open(top, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let inner = entry.file_name();
        if !is_self_or_parent(inner) && is_directory_after_unlink(directory.as_fd(), inner)? {
            // To move a directory one must be allowed to write to it.
            permit(directory.as_fd(), inner);
            loop {
                *moved += 1;
                let lifted = format!(".lifted-{moved}");
                // An empty directory of that name would be replaced, which is as good.
                match renameat(&directory, inner, top, lifted.as_str()) {
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    result => break result?,
                }
            }
        }
    }
    Ok(())
}

/// Unlinks `name` unless it is a directory, and tells whether it is one.
fn is_directory_after_unlink(directory: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(false),
        // Linux says the first; POSIX the second (unlink(2)).
        Err(Errno::ISDIR | Errno::PERM) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens a directory, which becomes readable to its owner if it was not.
fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd> {
    permit(at, name);
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Gives the owner every right. What that is not allowed for is found out by whoever uses it.
fn permit(at: BorrowedFd<'_>, name: impl rustix::path::Arg) {
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
    fn a_tree_deeper_than_any_stack_is_removed() {
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
    fn missing_permissions_and_names_of_its_own_are_no_obstacle() {
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
