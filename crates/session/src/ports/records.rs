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

    /// The last `initialize` of a grant.
    ///
    /// # Errors
    ///
    /// [`RecordsError::Damaged`] if it cannot be read now or ever.
    fn last_initialize<'a>(&'a self, grant: &'a GrantId)
    -> BoxFuture<'a, Result<Option<LastInitialize>, RecordsError>>;

    /// Forgets the last `initialize` of the grants whose session was opened before `before` and has
    /// ended. Grants also expire, of which nothing is heard here.
    ///
    /// # Errors
    ///
    /// [`RecordsError`]. It is called again later.
    fn forget_initializes(&self, before: SystemTime) -> BoxFuture<'_, Result<(), RecordsError>>;

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

/// The key of a session: the SHA-256 of its id, which is never stored. The key of an implicit
/// session is a SHA-256 of its grant and its name.
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
    /// True if no client has an id of it: it leaves no ended id behind, and may be made again.
    pub implicit: bool,
}

/// The last `initialize` of a grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastInitialize {
    /// The session that it has opened.
    pub key: SessionKey,
    /// The snapshot of that session at its opening.
    pub snapshot: Snapshot,
}

/// The grant or the user whose sessions were ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RevokedSubject {
    /// One grant.
    Grant(GrantId),
    /// All grants of a user.
    User(UserId),
}

/// A change of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Saves the record of a session that an `initialize` has just opened, which is the last one of
    /// its grant from now on. Nothing happens if the session has ended.
    Open(Record, Snapshot),
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
    /// Removes the record of an implicit session, which may be saved again later. Its key is not
    /// remembered.
    Forget {
        /// The session.
        key: SessionKey,
        /// If present, nothing happens to a record with a later activity, as for
        /// [`Change::ExpireIfUnused`].
        last_activity: Option<SystemTime>,
    },
    /// Forgets the last `initialize` of a grant or a user, unless its session was opened after this
    /// time.
    Revoke(RevokedSubject, SystemTime),
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
