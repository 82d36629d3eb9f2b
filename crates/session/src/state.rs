//! What the registry knows: sessions, their phases and backends, limits, deadlines and pending changes.
//!
//! Everything here is synchronous: no module awaits a port or spawns a task. State machines take the time as an argument.
//! The layers above ([`records`](crate::records), [`backends`](crate::backends), `client`) act on this state and are unknown here.

pub(crate) mod attached_backend;
pub(crate) mod change_queue;
pub(crate) mod deadlines;
pub(crate) mod expiry;
pub(crate) mod phase;
pub(crate) mod quota;
pub(crate) mod registry_state;
pub(crate) mod renewal_gate;
pub(crate) mod restart_backoff;
pub(crate) mod revocations;
pub(crate) mod session;
pub(crate) mod session_id;
pub(crate) mod table;
pub(crate) mod tombstones;
