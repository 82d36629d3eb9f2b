//! A lock that shows whether other processes have the database open.
//!
//! Each process holds a shared lock on a file beside the database while it lives, however it dies.
//! A process that gets the exclusive lock at its start is alone, and may delete what dead processes
//! have left: after a crash of the only broker no request waits for a lease to expire. On a file
//! system without such locks a process never counts as alone.
//!
//! The lock is not on the database itself: SQLite has its own locks there, and closing any
//! descriptor would drop them.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// The lock of this process.
#[derive(Debug)]
pub(super) struct DatabaseLock(File);

impl DatabaseLock {
    /// Acquires the lock, and returns whether it is exclusive: then other processes wait in this
    /// call until [`DatabaseLock::downgrade`], while this one migrates the database.
    pub(super) fn acquire(database: &Path) -> io::Result<(Self, bool)> {
        let mut path = database.as_os_str().to_owned();
        path.push("-lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(PathBuf::from(path))?;
        match file.try_lock() {
            Ok(()) => Ok((Self(file), true)),
            Err(TryLockError::WouldBlock) => {
                if let Err(TryLockError::WouldBlock) = file.try_lock_shared() {
                    tracing::info!("waiting for another process to migrate the database");
                    file.lock_shared()?;
                }
                Ok((Self(file), false))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "no database lock: after a crash, requests wait until old leases expire");
                Ok((Self(file), false))
            }
        }
    }

    /// Makes the lock a shared one, so that other processes can open the database.
    pub(super) fn downgrade(self) -> Self {
        if let Err(error) = self.0.lock_shared() {
            tracing::warn!(%error, "database lock not held: another broker may delete this one's leases");
        }
        self
    }

    /// Releases the lock, as dropping all clones of it does.
    pub(super) fn release(&self) {
        // A lock that cannot be released goes with the process.
        let _unlocked = self.0.unlock();
    }
}
