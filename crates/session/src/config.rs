//! The numbers of the registry.
//!
//! Whoever reads configuration files validates them there; each value here has a meaning at any size.

use std::time::Duration;

use http::StatusCode;

/// Limits and times of a [`Registry`](crate::Registry).
#[derive(Clone, Debug)]
pub struct Config {
    /// How many sessions may exist at once, those included that are starting or whose backend is being stopped.
    pub max_sessions: usize,
    /// How many of them one user may hold.
    pub max_sessions_per_user: usize,
    /// How long a session without an exchange in flight lives after its last one.
    pub idle_timeout: Duration,
    /// How often idle sessions are looked for.
    pub reap_interval: Duration,
    /// How long a backend may take to start: from the order to spawn it to its answer to `initialize`.
    pub start_timeout: Duration,
    /// How long [`Registry::stop`](crate::Registry::stop) waits for the backends.
    pub stop_deadline: Duration,
    /// How an id that was never issued, or is no longer remembered, is answered.
    pub unknown_status: UnknownStatus,
    /// How many ended ids are remembered, so that they are told from unknown ones. The oldest is forgotten first.
    pub tombstones: usize,
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
            start_timeout: Duration::from_secs(30),
            stop_deadline: Duration::from_secs(10),
            unknown_status: UnknownStatus::Gone,
            tombstones: 4096,
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
