//! The registry of MCP sessions.
//!
//! A session is a record, and a backend is a cache of it: the registry mints a session's id, binds it to the grant
//! that made it, keeps the caps, and routes each exchange to the backend that serves the session now. It speaks
//! `http` at its edge and knows neither processes nor OAuth, so that any service can embed it:
//!
//! 1. bring a [`Spawner`](ports::Spawner) that makes [`Backend`](ports::Backend)s,
//! 2. authenticate each request and put a [`Caller`](ports::Caller) into its extensions,
//! 3. hand `POST`, `GET` and `DELETE` of the MCP endpoint to [`Registry::serve`],
//! 4. call [`Registry::stop`] at the end.
//!
//! What holds at any time:
//!
//! - A session outlives its backends. It sleeps when its backend is idle, has died or was left behind by a restart, and the
//!   next request wakes it; a client notices nothing. With [`Config::retain`] zero it ends with its backend instead.
//! - Each backend has exactly one keeper task, which owns its end; a session's slot is shared with its keepers. So the caps
//!   bound the sessions that leave anything behind, not only those that are reachable.
//! - A backend is replaced, put to sleep or given up under the lock of its session, and only if it is the one in the seat: whoever
//!   watches an old one can do no harm. Exchanges that have entered a backend finish on it, up to a grace.
//! - A session ends once. Whoever ends it takes it out of the table in the same call; from then on its id is ended.
//! - A session id is never kept and never logged: table and records are keyed by its SHA-256, and logs show a short tag of that.
//!
//! The modules in reading order: `id`, `life`, `streak`, `agenda`, `caps`, `tombstones`, `revocations` (small machines and tables), `seat`, `table`
//! (what there is), `registry`, `exchange`, `open`, `listen` (what clients do), `keeper`, `renewals`, `wake`, `ending`, `reaper`, `rotator`
//! (how backends come and go), `journal`, `restore` (durable records), `sqlite` (the usual store of them, a feature).
//!
//! Left out: requests without a handshake (the era from 2026-07-28).

mod agenda;
mod caps;
mod config;
mod ending;
mod exchange;
mod id;
mod journal;
mod keeper;
mod life;
mod listen;
mod open;
#[cfg(test)]
mod permutations;
pub mod ports;
mod reaper;
mod refusal;
mod registry;
mod renewals;
mod restore;
mod revocations;
mod rotator;
mod seat;
mod shallow;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod streak;
mod sync;
mod table;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tombstones;
mod wake;

pub use config::{Config, UnknownStatus};
pub use refusal::SignInRequired;
pub use registry::{Registry, RegistryBuilder, Stats};
