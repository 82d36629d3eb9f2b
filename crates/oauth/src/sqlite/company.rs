//! Whether other processes have the database open.
//!
//! Each holds a shared lock on a file beside it for as long as it lives, however it dies. Who gets it for itself alone, at
//! the start, knows that nobody else is there, and may clear away what dead processes have left: after a crash of the only
//! broker nobody waits for a lease to run out. Where the file system has no such locks there is just no such knowledge.
//!
//! The lock is not on the database itself: SQLite has its own there, and closing any descriptor of it would drop them.

use std::{
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// This process among those that have the database open.
#[derive(Debug)]
pub(super) struct Company(File);

impl Company {
    /// Enters, and says whether nobody else is there: then nobody else comes until [`Company::settle`]. It waits for one that is
    /// alone, for as long as that one needs to bring the tables up to date.
    pub(super) fn enter(database: &Path) -> io::Result<(Self, bool)> {
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
                    tracing::info!("another process brings the database up to date: it is waited for");
                    file.lock_shared()?;
                }
                Ok((Self(file), false))
            }
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, "it cannot be told whether other processes have the database open");
                Ok((Self(file), false))
            }
        }
    }

    /// Lets others come.
    pub(super) fn settle(self) -> Self {
        if let Err(error) = self.0.lock_shared() {
            tracing::debug!(%error, "there is no lock to be seen by others");
        }
        self
    }

    /// Leaves. Dropping all that holds it does the same.
    pub(super) fn leave(&self) {
        // What cannot be given back goes with the process.
        let _unlocked = self.0.unlock();
    }
}
