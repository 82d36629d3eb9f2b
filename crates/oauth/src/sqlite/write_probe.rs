//! The probe of the database: a write, and the file.
//!
//! A store can answer reads while every write fails, as on a full disk, and can lose its file: with
//! a deleted file all goes on until the restart, which finds nothing.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::SqliteStore;

/// Checks that the database of a store can be written and is still the file at its path.
#[derive(Clone, Debug)]
pub struct WriteProbe {
    store: SqliteStore,
    path: PathBuf,
    file: FileId,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WriteProbeError {
    /// The file at the path is gone.
    #[error("database file {} is gone: what is written now is lost at the next start", .0.display())]
    Gone(PathBuf, #[source] io::Error),
    /// Another file is at the path.
    #[error("database file {} was replaced: what is written now is lost at the next start", .0.display())]
    Replaced(PathBuf),
    /// A write failed.
    #[error("cannot write to the database: check store.path and disk space")]
    Write(#[source] sqlx::Error),
}

/// Device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileId(u64, u64);

impl WriteProbe {
    /// A probe of a store that has just been opened at `path`.
    ///
    /// # Errors
    ///
    /// If there is no file at the path.
    pub fn new(store: SqliteStore, path: &Path) -> io::Result<Self> {
        Ok(Self {
            store,
            path: path.to_owned(),
            file: FileId::of(path)?,
        })
    }

    /// Compares the file and writes: one page, which holds the same as before.
    ///
    /// Dropping the future undoes the write.
    ///
    /// # Errors
    ///
    /// Any [`WriteProbeError`].
    pub async fn check(&self) -> Result<(), WriteProbeError> {
        match FileId::of(&self.path) {
            Ok(found) if found == self.file => {}
            Ok(_) => return Err(WriteProbeError::Replaced(self.path.clone())),
            Err(error) => return Err(WriteProbeError::Gone(self.path.clone(), error)),
        }
        self.write().await.map_err(WriteProbeError::Write)
    }

    async fn write(&self) -> Result<(), sqlx::Error> {
        let mut change = self.store.writer.begin_with("BEGIN IMMEDIATE").await?;
        // The number is the program's own and unused: migrations have a table.
        sqlx::raw_sql("PRAGMA user_version = 0").execute(&mut *change).await?;
        change.commit().await
    }
}

impl FileId {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self(metadata.dev(), metadata.ino()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn deleted_and_replaced_files_are_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let probe = WriteProbe::new(store.clone(), &path).unwrap();
        probe.check().await.unwrap();
        let aside = directory.path().join("aside");
        fs::rename(&path, &aside).unwrap();
        assert!(matches!(probe.check().await, Err(WriteProbeError::Gone(..))));
        fs::write(&path, "").unwrap();
        assert!(matches!(probe.check().await, Err(WriteProbeError::Replaced(_))));
        fs::rename(&aside, &path).unwrap();
        probe.check().await.unwrap();
        store.close().await;
        assert!(matches!(probe.check().await, Err(WriteProbeError::Write(_))));
    }

    #[tokio::test]
    async fn check_writes_to_the_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("broker.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let probe = WriteProbe::new(store.clone(), &path).unwrap();
        let log = directory.path().join("broker.db-wal");
        let before = fs::metadata(&log).unwrap().len();
        probe.check().await.unwrap();
        assert!(fs::metadata(&log).unwrap().len() > before);
        store.close().await;
    }
}
