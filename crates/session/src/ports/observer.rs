//! Events of the registry for metrics, and the wall clock that records and credentials need.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Receives events, to count them. Calls come from any thread and must return at once.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Receives an event.
    fn on(&self, event: Event);
}

/// An event of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was opened.
    Opened,
    /// A backend was started; the time it took.
    Spawned(SpawnPurpose, Duration),
    /// A backend did not start.
    SpawnFailed(SpawnPurpose, SpawnFailure),
    /// A backend ended by itself.
    BackendDied,
    /// A session became dormant.
    Detached(DetachReason),
    /// A dormant session has a backend again; the time since the first request that waited for it.
    Revived(Duration),
    /// A dormant session got no backend.
    RevivalFailed,
    /// The time that a request waited for a backend of its dormant session, successful or not.
    Waited(Duration),
    /// A request was refused because the backends of its session keep failing.
    BackedOff,
    /// A session moved to a new backend.
    Rotated,
    /// A session did not move to a new backend and keeps the old one for now.
    RotationFailed,
    /// A session was not opened because a quota is reached.
    QuotaExceeded(QuotaScope),
    /// A session ended.
    Ended(EndReason),
}

/// The purpose of a start of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnPurpose {
    /// A new session.
    Opening,
    /// A dormant session.
    Revival,
    /// The replacement of a session's backend.
    Rotation,
}

/// The reason that a backend did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The user has to sign in again ([`SpawnError::Credentials`](super::SpawnError::Credentials)).
    Credentials,
    /// No backend can be made now ([`SpawnError::Unavailable`](super::SpawnError::Unavailable)).
    Unavailable,
    /// It did not start or become ready ([`SpawnError::Failed`](super::SpawnError::Failed),
    /// [`SpawnError::NotReady`](super::SpawnError::NotReady)).
    Failed,
    /// It took too long.
    TimedOut,
}

/// The reason that a backend is taken from its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachReason {
    /// The session was idle for long enough.
    Idle,
    /// The backend ended by itself.
    BackendDied,
    /// The credential of the backend expired and could not be renewed in time.
    Expired,
}

/// The quota that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaScope {
    /// The quota of a user.
    User,
    /// The quota of the registry.
    Total,
}

/// The reason for the end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client ended it.
    Deleted,
    /// Its backend ended by itself, and sessions are not retained.
    BackendDied,
    /// It was idle for too long.
    Idle,
    /// Its grant or its user was ended.
    Revoked,
    /// Its opening failed.
    NotOpened,
    /// It was dormant, and a new session needed its place.
    Evicted,
    /// It has no snapshot to revive it from.
    Unrevivable,
    /// The credential of its backend expired and could not be renewed, and sessions are not
    /// retained.
    Expired,
    /// The registry stopped.
    Shutdown,
}

impl From<DetachReason> for EndReason {
    /// The reason for the end of a session that is not retained without its backend.
    fn from(reason: DetachReason) -> Self {
        match reason {
            DetachReason::Idle => Self::Idle,
            DetachReason::BackendDied => Self::BackendDied,
            DetachReason::Expired => Self::Expired,
        }
    }
}

/// The wall clock: records outlive the process, and credentials expire by the calendar.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// Counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoopObserver;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl Observer for NoopObserver {
    fn on(&self, _event: Event) {}
}
