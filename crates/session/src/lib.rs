//! The registry of MCP sessions.
//!
//! A session is a record, and a server is a cache of it. The registry generates a session's id,
//! binds it to the grant that opened it, keeps the quotas, and decides which server the session has
//! now. It speaks `http` at its edge and knows neither processes nor OAuth, so that any service can
//! embed it:
//!
//! 1. implement a [`Spawner`](ports::Spawner) that makes [`Backend`](ports::Backend)s,
//! 2. authenticate each request and put an `Arc` of its [`Caller`](ports::Caller) into its
//!    extensions,
//! 3. hand `POST`, `GET` and `DELETE` of the MCP endpoint to [`Registry::serve`],
//! 4. call [`Registry::stop`] at the end.
//!
//! What a client holds on to (its streams, the calls in flight) ends with its backend then. An
//! embedder that keeps it implements [`Host`](ports::Host) instead: a
//! [`Conversation`](ports::Conversation) lives as long as its session and starts the servers. A
//! spawner is embedded by the ready one, [`PassThrough`].
//!
//! A request without a session id belongs where the host says ([`Route`](ports::Route)): to a new
//! session, to an *implicit* one that has no id, or to that of the grant's last `initialize`.
//!
//! Invariants:
//!
//! - A session outlives its servers. It becomes dormant when its server was idle, has died or did
//!   not survive a restart, or its credential has expired, and the next call wakes it. If
//!   [`Config::retain`] is zero, it ends with its server instead.
//! - Each server has exactly one keeper, a task that owns its end, and keepers hold permits of the
//!   quota. So the quotas bound what is left of sessions, not only the sessions that can be
//!   reached.
//! - A server is attached and detached under the lock of its session, together with the
//!   conversation, and detached only if it is the attached one: the keeper of an old server cannot
//!   disturb a new one.
//! - A session has at most two servers: one, and one that a rotation has replaced and that finishes
//!   what is in flight on it. The next rotation waits for the end of that.
//! - A call that waits for a server is answered by the wake under way, and there is one wake at a
//!   time.
//! - A session ends once, and the function that ends it removes it from the table: from then on its
//!   id is answered as ended.
//! - A client has the id of a session only after its record is written.
//! - An implicit session is made by one of its first requests, and is like any other from then on,
//!   except that it leaves no ended id behind and may be made again.
//! - A session id is never kept and never logged. Table and records are keyed by its SHA-256 (of
//!   grant and name, for an implicit session), and logs show a short tag of that.
//! - Lock order: the making of implicit sessions, then session, then conversation, then the leaves
//!   (queue of changes, deadlines, quota, backoffs, handshakes).
//!
//! The modules in reading order; each group uses only groups before it:
//!
//! - [`ports`], [`Config`]: what the embedder provides.
//! - `exchange`, `jsonrpc`: the edge of an exchange, as far as it is read here.
//! - `pass_through`: the ready conversation.
//! - `state`: what exists. Ids, the phases of a session, its server, table, quota, deadlines,
//!   backoffs, tombstones, revocations, and `registry_state`, which ends sessions and detaches
//!   servers.
//! - `records`: what is kept. Write-behind, restore, and `sqlite` (a feature).
//! - `servers`: how servers come and go. Conversation, start, keeper, renewal, wake, rotation,
//!   reaper.
//! - `client`: what a client does. Dispatch, opening, requests without an id, errors.
//! - `registry`: the public type.
//! - `testing`: scripted ports (a feature).

mod client;
mod config;
mod error_chain;
mod exchange;
mod jsonrpc;
mod pass_through;
pub mod ports;
mod records;
mod registry;
mod servers;
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
pub use pass_through::PassThrough;
pub use registry::{Registry, RegistryBuilder, Stats};
