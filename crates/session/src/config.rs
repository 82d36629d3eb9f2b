//! The numbers of the registry.
//!
//! Whoever reads configuration files validates them there; each value here has a meaning at any size.

use std::time::Duration;

use http::StatusCode;

/// Limits and times of a [`Registry`](crate::Registry).
#[derive(Clone, Debug)]
pub struct Config {
    /// How many sessions may exist at once, dormant ones and those included that are starting or whose backend is
    /// being stopped. A new session takes the place of the dormant one that has been idle for longest.
    pub max_sessions: usize,
    /// How many of them one user may hold.
    pub max_sessions_per_user: usize,
    /// How long a backend without an exchange in flight is kept after the last one.
    pub idle_timeout: Duration,
    /// How often idle sessions are looked for.
    pub reap_interval: Duration,
    /// How long a session outlives its last exchange without a backend. Zero: it ends with its backend.
    pub retain: Duration,
    /// How often credentials that are about to expire are looked for.
    pub rotate_interval: Duration,
    /// How long before its expiry a credential is renewed; half its life, if it lives for less than twice this.
    pub refresh_lead: Duration,
    /// How long exchanges in flight on a backend that was replaced may take to finish.
    pub rotate_grace: Duration,
    /// How long a backend may take to start: from the order to spawn it to its answer to `initialize`.
    pub start_timeout: Duration,
    /// How long after a backend that ended without having answered anything the next one but one is started; doubled each
    /// time, up to [`Config::max_backoff`].
    pub backoff: Duration,
    /// The longest such wait.
    pub max_backoff: Duration,
    /// How long after a renewal that was asked for because a backend had ended at its start there is no further one for
    /// that reason, for the same user. So much later a user who has taken the credential back upstream may be told.
    pub renewal_pause: Duration,
    /// How long a change of a session may take to reach its durable record, and so what a crash of the process can lose.
    pub write_behind: Duration,
    /// How long [`Registry::stop`](crate::Registry::stop) waits for the backends and the records.
    pub stop_deadline: Duration,
    /// How an id that was never issued, or is no longer remembered, is answered.
    pub unknown_status: UnknownStatus,
    /// How many ended ids are remembered, so that they are told from unknown ones. The oldest is forgotten first.
    pub tombstones: usize,
    /// How long durable records remember an ended id at most. In memory there is no such limit.
    pub tombstone_age: Duration,
    /// How often a stream that listens on a dormant session says that it is there.
    pub keep_alive: Duration,
}

/// The status for an unknown session id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownStatus {
    /// 410: tells an id that this registry does not know from one that has ended.
    Gone,
    /// 404: what clients take as the order to initialize again (MCP 2025-11-25, transports, "Session Management").
    NotFound,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_sessions: 256,
            max_sessions_per_user: 16,
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
