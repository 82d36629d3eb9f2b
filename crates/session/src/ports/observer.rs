//! The registry seen from outside: what happens, as events to be counted, and the wall clock that records need.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Hears what happens, to count it. Calls come from any thread and must return at once.
pub trait Observer: fmt::Debug + Send + Sync + 'static {
    /// Something has happened.
    fn on(&self, event: Event);
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was opened.
    Opened,
    /// A backend was started, in so long.
    Spawned(SpawnPurpose, Duration),
    /// A backend did not start.
    SpawnFailed(SpawnPurpose, SpawnFailure),
    /// A backend was gone by itself.
    BackendDied,
    /// A session was put to sleep.
    Detached(DetachReason),
    /// A dormant session has a backend again; so long after the first request that waited for it.
    Revived(Duration),
    /// A dormant session did not get a backend.
    RevivalFailed,
    /// A request has waited so long for a backend of its dormant session, whether there was one in the end or not.
    Waited(Duration),
    /// A request was put off because backends of its session keep ending.
    BackedOff,
    /// A session has moved to a fresh backend.
    Rotated,
    /// A session did not move and keeps its backend for now.
    RotationFailed,
    /// A session was not opened because a cap is reached.
    QuotaExceeded(QuotaScope),
    /// A session has ended.
    Ended(EndReason),
}

/// What a backend is started for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnPurpose {
    /// A new session.
    Opening,
    /// A session that sleeps.
    Revival,
    /// A session whose backend is to be replaced.
    Rotation,
}

/// Why a backend did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The user has to sign in again ([`SpawnError::Credentials`](super::SpawnError::Credentials)).
    Credentials,
    /// None can be made now ([`SpawnError::Unavailable`](super::SpawnError::Unavailable)).
    Unavailable,
    /// It did not start or become ready ([`SpawnError::Failed`](super::SpawnError::Failed),
    /// [`SpawnError::NotReady`](super::SpawnError::NotReady)).
    Failed,
    /// It took too long.
    TimedOut,
}

/// Why a session is put to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachReason {
    /// Nothing happened on it for long enough.
    Idle,
    /// Its backend was gone by itself.
    BackendDied,
    /// Its backend's credential ran out and could not be renewed in time.
    Expired,
}

/// Which cap is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaScope {
    /// The one of a user.
    User,
    /// The one of the registry.
    Total,
}

/// Why a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The client ended it.
    Deleted,
    /// Its backend was gone by itself, and nothing is retained.
    BackendDied,
    /// Nothing happened on it for too long.
    Idle,
    /// Its grant or its user was ended.
    Revoked,
    /// It did not come to life.
    NotOpened,
    /// It was dormant, and a new session took its place.
    Evicted,
    /// Its record is of no use for a fresh backend.
    Unrevivable,
    /// Its backend's credential ran out and could not be renewed, and nothing is retained.
    Expired,
    /// The registry stops.
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
    /// What time it is.
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
