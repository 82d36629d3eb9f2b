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
//! - A session has exactly one keeper task, which owns the session's slot and outlives its backend; however a session
//!   ends, the backend is stopped by its keeper, and only then is the slot free again. So the caps bound the
//!   backends that exist, not only those that are reachable.
//! - A session ends once. Whoever ends it takes it out of the table in the same call; from then on its id is ended.
//! - A session id is never kept and never logged: the table is keyed by its SHA-256, and logs show a short tag of that.
//!
//! Left out so far: rotation, revival of a session whose backend is gone, and requests without a handshake.

mod caps;
mod config;
mod exchange;
mod id;
mod keeper;
mod life;
mod open;
pub mod ports;
mod reaper;
mod refusal;
mod registry;
mod seat;
mod shallow;
mod table;

pub use config::{Config, UnknownStatus};
pub use refusal::NeedsSignIn;
pub use registry::{Registry, Stats};
