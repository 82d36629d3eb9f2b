//! A private user for each child, from a range of numbers that nothing else uses.
//!
//! Two processes with the same user can signal each other and read each other's files. So a number
//! is leased machine-wide, by a locked file in [`LOCKS`]: supervisors of other processes, or of
//! this one, never hand out the same number at the same time. The lock ends with the process.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The directory of the locks. Only root can create it, and only its owner can change it.
pub(super) const LOCKS: &str = "/run/supervised-users";

/// The range of users that children get by default, 65,536 numbers below 2^31: above those that
/// systemd, containers (`/etc/subuid`) and directory services (SSSD, FreeIPA) allocate.
pub(super) const DEFAULT_RANGE: RangeInclusive<u32> = 0x7F00_0000..=0x7F00_FFFF;

/// The range and its numbers in use.
#[derive(Clone, Debug)]
pub(super) struct UserPool {
    range: RangeInclusive<u32>,
    locks: PathBuf,
    state: Arc<Mutex<PoolState>>,
}

/// Locked only to take or return a number.
#[derive(Debug)]
struct PoolState {
    /// The numbers in use, each by exactly one [`UserLease`].
    taken: BTreeSet<u32>,
    /// Where the search begins, so that a number rests before it is used again.
    next: u32,
}

/// A number in use. Its drop returns it, so it must outlive the last process of its user.
#[derive(Debug)]
pub(super) struct UserLease {
    pub(super) number: u32,
    file: PathBuf,
    /// Locked while it is open.
    _lock: File,
    state: Arc<Mutex<PoolState>>,
}

impl UserPool {
    /// Creates the directory of the locks. Fails if it cannot, or if others could change it.
    pub(super) fn new(range: RangeInclusive<u32>, locks: &Path) -> io::Result<Self> {
        let context = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", locks.display()));
        create(locks).map_err(context)?;
        let found = fs::symlink_metadata(locks).map_err(context)?;
        if !found.is_dir() || found.mode() & 0o022 != 0 {
            return Err(context(io::Error::other(
                "must be a directory that only its owner can change",
            )));
        }
        let state = PoolState {
            taken: BTreeSet::new(),
            next: *range.start(),
        };
        Ok(Self {
            range,
            locks: locks.to_owned(),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// The next free number.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if none is free, and the first error of the system.
    pub(super) fn lease(&self) -> io::Result<UserLease> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // In case it was removed. Without it, no lock succeeds below.
        let _ = create(&self.locks);
        let before = *self.range.start()..state.next;
        let mut numbers = (state.next..=*self.range.end()).chain(before);
        let (number, file, lock) = loop {
            let number = numbers.next().ok_or(rustix::io::Errno::AGAIN)?;
            let file = self.locks.join(number.to_string());
            if !state.taken.contains(&number)
                && let Some(lock) = lock(&file)?
            {
                break (number, file, lock);
            }
        };
        state.taken.insert(number);
        state.next = if number == *self.range.end() {
            *self.range.start()
        } else {
            number + 1
        };
        Ok(UserLease {
            number,
            file,
            _lock: lock,
            state: Arc::clone(&self.state),
        })
    }
}

impl Drop for UserLease {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // While it is locked; `lock` detects a file that was removed.
        let _ = fs::remove_file(&self.file);
        state.taken.remove(&self.number);
    }
}

/// Creates the directory of the locks, unless it exists.
fn create(locks: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(locks) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Creates and locks a file. `None` if another has it locked, or has just removed it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(None);
    };
    let locked = file.metadata()?;
    Ok((locked.ino() == found.ino() && locked.dev() == found.dev()).then_some(file))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn numbers(pool: &UserPool) -> Vec<UserLease> {
        std::iter::from_fn(|| pool.lease().ok()).collect()
    }

    #[test]
    fn number_in_use_is_not_leased_again_until_it_is_returned() {
        let locks = tempfile::tempdir().unwrap();
        let users = UserPool::new(70_000..=70_001, locks.path()).unwrap();
        let (one, two) = (users.lease().unwrap(), users.lease().unwrap());
        assert_eq!((one.number, two.number), (70_000, 70_001));
        assert!(users.lease().is_err());
        drop(one);
        assert_eq!(users.lease().unwrap().number, 70_000);
    }

    #[test]
    fn two_pools_share_no_number() {
        let locks = tempfile::tempdir().unwrap();
        let pool = || UserPool::new(70_000..=70_009, locks.path()).unwrap();
        let (one, two) = (pool(), pool());
        let (first, second) = (one.lease().unwrap(), two.lease().unwrap());
        assert_eq!((first.number, second.number), (70_000, 70_001));
        let rest = numbers(&one);
        assert_eq!(rest.len(), 8);
        assert!(two.lease().is_err());
        drop((first, rest));
        assert_eq!(numbers(&two).len(), 9);
    }

    #[test]
    fn returned_numbers_leave_no_file_and_rest() {
        let locks = tempfile::tempdir().unwrap();
        let users = UserPool::new(70_000..=70_001, locks.path()).unwrap();
        for expected in [70_000, 70_001, 70_000] {
            assert_eq!(users.lease().unwrap().number, expected);
        }
        // The directory may be removed meanwhile.
        fs::remove_dir(locks.path()).unwrap();
        assert!(users.lease().is_ok());
        assert_eq!(fs::read_dir(locks.path()).unwrap().count(), 0);
    }

    #[test]
    fn directory_that_others_can_change_is_refused() {
        let locks = tempfile::tempdir().unwrap();
        fs::set_permissions(locks.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(UserPool::new(70_000..=70_001, locks.path()).is_err());
        assert!(UserPool::new(70_000..=70_001, Path::new("/no/such/directory/locks")).is_err());
    }
}
