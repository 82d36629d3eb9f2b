//! Durable records of sessions: what is left of one when its backend, or the whole process, is gone.

use std::{fmt, time::SystemTime};

use super::{BoxError, BoxFuture, GrantId, Snapshot, UserId};

/// Keeps records over restarts.
///
/// The registry loads all of them once, at its start, and writes changes behind: in order, one batch at a time. A batch
/// that failed is tried again with whatever has changed since, so applying the same change twice must be harmless.
///
/// Several registries may work on the same records, as there are while one process takes over from another. What has ended
/// stays so, whoever saves it afterwards, and what one of them gives up is kept where another one has used it since.
pub trait Records: fmt::Debug + Send + Sync + 'static {
    /// All records, without their snapshots.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    fn all(&self) -> BoxFuture<'_, Result<Vec<Record>, RecordsError>>;

    /// The snapshot of a session; `None` if there is no record of it.
    ///
    /// # Errors
    ///
    /// [`RecordsError::Damaged`] if it cannot be read now or ever.
    fn snapshot(&self, key: SessionKey) -> BoxFuture<'_, Result<Option<Snapshot>, RecordsError>>;

    /// The sessions that have ended, the newest `most` of them, the oldest of these first.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    fn ended(&self, most: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>>;

    /// Forgets which sessions ended before `before`, and of the others all but the newest `most`.
    ///
    /// # Errors
    ///
    /// [`RecordsError`]. It is asked for again later.
    fn forget_ended(&self, before: SystemTime, most: usize) -> BoxFuture<'_, Result<(), RecordsError>>;

    /// Whether others may have been at work on the records when this was opened: then the sessions that they serve are among
    /// all that there are, and are theirs until they are used here.
    fn is_shared(&self) -> bool {
        false
    }

    /// Applies changes, all of them or none. They are durable when it returns.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    fn apply(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), RecordsError>>;
}

/// What stands for a session: the SHA-256 of its id. The id itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 32]);

/// What is known of a session without its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which session.
    pub key: SessionKey,
    /// The grant that it is bound to.
    pub grant: GrantId,
    /// The user of the grant.
    pub user: UserId,
    /// When it was opened.
    pub opened: SystemTime,
    /// When the last exchange began or ended, as of the last write.
    pub last_activity: SystemTime,
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The record is as follows, unless the session has ended.
    Save(Record, Snapshot),
    /// There has been an exchange. A later one that is known of stays.
    Touch(SessionKey, SystemTime),
    /// The session has ended: its record goes, and its key is remembered among the ended ones.
    End(SessionKey, SystemTime),
    /// The same, but nobody wanted it: its time was over, or its place was needed. Nothing happens if the record knows of an
    /// exchange after `last_activity` (by more than the second that two readings of a clock may be apart).
    ExpireIfUnused {
        /// Which session.
        key: SessionKey,
        /// When it ended.
        at: SystemTime,
        /// When the last exchange was, as far as the one who gives it up knows.
        last_activity: SystemTime,
    },
}

/// Why records cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// They cannot be reached now; a later try may succeed.
    #[error("the session records cannot be reached now")]
    Unavailable(#[source] BoxError),
    /// What is there cannot be read.
    #[error("a session record is damaged")]
    Damaged(#[source] BoxError),
}

/// Protects snapshots at rest: a handshake may hold what a client would not want on a disk.
pub trait Seal: fmt::Debug + Send + Sync + 'static {
    /// Seals bytes for one record.
    fn seal(&self, key: SessionKey, plain: &[u8]) -> Vec<u8>;

    /// Opens what [`Seal::seal`] made for the same record.
    ///
    /// # Errors
    ///
    /// If it was not sealed so, or not for this record.
    fn open(&self, key: SessionKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError>;
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", hex::encode(&self.0[..4]))
    }
}
