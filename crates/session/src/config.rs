//! The configuration of a registry. Every value has a meaning at any size; ranges are for the
//! embedder to check.

use std::time::Duration;

use http::StatusCode;

/// Limits and times of a [`Registry`](crate::Registry).
#[derive(Clone, Debug)]
pub struct Config {
    /// The quota of sessions, including dormant and opening ones and those whose server is being
    /// stopped. A server that a rotation has replaced counts once more until its end, but no
    /// rotation is refused for it. A new session evicts the dormant one that has been idle for
    /// longest.
    pub max_sessions: usize,
    /// The quota of one user.
    pub max_sessions_per_user: usize,
    /// The quota of implicit sessions of one grant ([`Route`](crate::ports::Route)). A new one ends
    /// the one that has been idle for longest; those that are in use stay.
    pub max_implicit_sessions_per_grant: usize,
    /// The idle time after which a backend is stopped.
    pub idle_timeout: Duration,
    /// The interval of the reaper.
    pub reap_interval: Duration,
    /// The idle time after which a dormant session ends. Zero: a session ends with its backend.
    pub retain: Duration,
    /// The interval of the rotator.
    pub rotate_interval: Duration,
    /// The time before its expiry at which a credential is refreshed; half its life if it lives for
    /// less than twice this.
    pub refresh_lead: Duration,
    /// The time that a replaced server without an expiry has to finish what is in flight on it.
    /// One with an expiry has the time until then.
    pub rotate_grace: Duration,
    /// The limit for the start of a backend: from the order to spawn it to its answer to
    /// `initialize`.
    pub start_timeout: Duration,
    /// The delay before the next start after the second server in a row that did not start or
    /// ended without having answered anything; doubled each time, up to [`Config::max_backoff`].
    /// Counted for each session and for each user.
    pub backoff: Duration,
    /// The longest such delay.
    pub max_backoff: Duration,
    /// The shortest time between two renewals for one user of which the reason is a backend that
    /// ended at its start. A user who has revoked the credential upstream may be asked to sign in
    /// so much later.
    pub renewal_pause: Duration,
    /// The delay before a change of an open session is written to its durable record: a crash of
    /// the process loses these changes.
    pub write_behind: Duration,
    /// The limit for [`Registry::stop`](crate::Registry::stop) to wait for the backends and the
    /// records.
    pub stop_deadline: Duration,
    /// The status for an id that was never issued or is no longer remembered.
    pub unknown_status: UnknownStatus,
    /// The number of ended ids that are remembered, to distinguish them from unknown ones. The
    /// oldest is forgotten first.
    pub tombstones: usize,
    /// The time for which durable records remember an ended id. In memory there is no such limit.
    pub tombstone_age: Duration,
    /// The interval of keep-alive comments on a parked stream.
    pub keep_alive: Duration,
}

/// The status for an unknown session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownStatus {
    /// 410: distinguishes an unknown id from one that has ended.
    Gone,
    /// 404: clients initialize again (MCP 2025-11-25, transports, "Session Management").
    NotFound,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_sessions: 256,
            max_sessions_per_user: 16,
            max_implicit_sessions_per_grant: 4,
            idle_timeout: Duration::from_secs(15 * 60),
            reap_interval: Duration::from_secs(30),
            retain: Duration::ZERO,
            rotate_interval: Duration::from_secs(60),
            refresh_lead: Duration::from_secs(5 * 60),
            rotate_grace: Duration::from_secs(5 * 60),
            start_timeout: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(60),
            renewal_pause: Duration::from_secs(5 * 60),
            write_behind: Duration::from_millis(250),
            stop_deadline: Duration::from_secs(10),
            unknown_status: UnknownStatus::Gone,
            tombstones: 4096,
            tombstone_age: Duration::from_secs(7 * 24 * 3600),
            keep_alive: Duration::from_secs(15),
        }
    }
}

impl UnknownStatus {
    pub(crate) fn code(self) -> StatusCode {
        match self {
            Self::Gone => StatusCode::GONE,
            Self::NotFound => StatusCode::NOT_FOUND,
        }
    }
}
