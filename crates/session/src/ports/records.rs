//! Durable records of sessions, which outlive backends and the process.

use std::{fmt, time::SystemTime};

use super::{BoxError, BoxFuture, GrantId, Snapshot, UserId};

/// Keeps records over restarts.
///
/// The registry loads all of them once, at its start, and writes changes behind: in order, one
/// batch at a time. A batch that failed is tried again with later changes, so applying the same
/// change twice must be harmless.
///
/// Several registries may use the same records, for example while one process takes over from
/// another. A session that has ended stays so, even if another registry saves it afterwards. A
/// session that one of them gives up is kept if another one has used it since.
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

    /// The newest `limit` of the ended sessions, the oldest of these first.
    ///
    /// # Errors
    ///
    /// [`RecordsError`].
    fn ended(&self, limit: usize) -> BoxFuture<'_, Result<Vec<SessionKey>, RecordsError>>;

    /// Forgets the sessions that ended before `before`, and of the others all but the newest
    /// `limit`.
    ///
    /// # Errors
    ///
    /// [`RecordsError`]. It is called again later.
    fn forget_ended(&self, before: SystemTime, limit: usize) -> BoxFuture<'_, Result<(), RecordsError>>;

    /// True if other processes may have been using the records when this was opened. Then the
    /// sessions that they serve are among all records, and belong to them until they are used here.
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

/// The key of a session: the SHA-256 of its id. The id itself is never stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 32]);

/// A session as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The session.
    pub key: SessionKey,
    /// The grant that it is bound to.
    pub grant: GrantId,
    /// The user of the grant.
    pub user: UserId,
    /// The time of its opening.
    pub opened: SystemTime,
    /// The time at which the last exchange began or ended, as of the last write.
    pub last_activity: SystemTime,
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Saves the record, unless the session has ended.
    Save(Record, Snapshot),
    /// Sets the time of the last activity, unless the record has a later one.
    Touch(SessionKey, SystemTime),
    /// Ends the session: removes its record and remembers its key among the ended ones.
    End(SessionKey, SystemTime),
    /// Ends a session because its time was over or its place was needed. Nothing happens if the
    /// record has an activity after `last_activity`, by more than the second that two readings of a
    /// clock may differ.
    ExpireIfUnused {
        /// The session.
        key: SessionKey,
        /// The time of its end.
        at: SystemTime,
        /// The last activity that this registry knows of.
        last_activity: SystemTime,
    },
}

/// The reason that records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    /// They cannot be reached now; a later attempt may succeed.
    #[error("the session records cannot be reached now")]
    Unavailable(#[source] BoxError),
    /// A record cannot be read.
    #[error("a session record is damaged")]
    Damaged(#[source] BoxError),
}

/// Encrypts snapshots at rest: a handshake may hold secrets of the client.
pub trait Seal: fmt::Debug + Send + Sync + 'static {
    /// Seals bytes for one record.
    fn seal(&self, key: SessionKey, plain: &[u8]) -> Vec<u8>;

    /// Opens bytes that [`Seal::seal`] made for the same record.
    ///
    /// # Errors
    ///
    /// An error if they were not sealed by it, or not for this record.
    fn open(&self, key: SessionKey, sealed: &[u8]) -> Result<Vec<u8>, BoxError>;
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", hex::encode(&self.0[..4]))
    }
}
