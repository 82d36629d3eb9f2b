//! The registry of MCP sessions.
//!
//! A session is a record, and a backend is a cache of it. The registry generates a session's id,
//! binds it to the grant that opened it, keeps the quotas, and routes each exchange to the backend
//! that serves the session now. It speaks `http` at its edge and knows neither processes nor OAuth,
//! so that any service can embed it:
//!
//! 1. implement a [`Spawner`](ports::Spawner) that makes [`Backend`](ports::Backend)s,
//! 2. authenticate each request and put an `Arc` of its [`Caller`](ports::Caller) into its
//!    extensions,
//! 3. hand `POST`, `GET` and `DELETE` of the MCP endpoint to [`Registry::serve`],
//! 4. call [`Registry::stop`] at the end.
//!
//! Invariants:
//!
//! - A session outlives its backends. It becomes dormant when its backend was idle, has died or did
//!   not survive a restart, or its credential has expired, and the next request revives it. If
//!   [`Config::retain`] is zero, it ends with its backend instead.
//! - Each backend has exactly one task, which owns its end, and these tasks share the session's
//!   permit. So the quotas bound the sessions that leave anything behind, not only those that can
//!   be reached.
//! - A backend is attached and detached under the lock of its session, and detached only if it is
//!   the attached one: the task of an old backend cannot disturb a new one. Exchanges in flight
//!   finish on their backend, up to a grace.
//! - A session ends once, and the function that ends it removes it from the table: from then on its
//!   id is answered as ended.
//! - A session id is never kept and never logged. Table and records are keyed by its SHA-256, and
//!   logs show a short tag of that.
//!
//! The modules in reading order; each group uses only groups before it:
//!
//! - [`ports`], [`Config`]: what the embedder provides.
//! - `state`: what exists. Ids, the phases of a session, its backend, table, quota, deadlines,
//!   backoff, tombstones, revocations, and `registry_state`, which ends sessions and detaches
//!   backends.
//! - `records`: what is kept. Write-behind, restore, and `sqlite` (a feature).
//! - `backends`: how backends come and go. Start, backend task, renewal, revival, rotation, reaper.
//! - `client`: what a client does. Dispatch, opening, parked streams, errors.
//! - `registry`: the public type.
//! - `testing`: scripted ports (a feature).
//!
//! Left out: requests without a handshake (the era from 2026-07-28).

mod backends;
mod client;
mod config;
mod error_chain;
pub mod ports;
mod records;
mod registry;
mod state;
mod sync;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

#[cfg(feature = "sqlite")]
pub use records::sqlite;

pub use client::dispatch::Served;
pub use config::{Config, UnknownStatus};
pub use registry::{Registry, RegistryBuilder, Stats};
