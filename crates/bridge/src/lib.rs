//! One JSON-RPC byte stream, carried over many HTTP exchanges.
//!
//! A [`Bridge`] takes a byte stream on which a local MCP server speaks (newline-delimited JSON-RPC, as over stdio) and serves it as the
//! MCP endpoint of one session over Streamable HTTP. It gives every request its own answer, whatever order the
//! answers come in and whatever ids the clients choose, puts what the server sends on its own account where somebody reads it, and
//! records the handshake, so that a fresh server can stand in for one that is gone.
//!
//! What holds:
//! - A request gets exactly one answer, with its id byte for byte: the server's, or a JSON-RPC error of the bridge. An answer never
//!   reaches another request.
//! - Nothing that a server writes is fatal but the end of its stream, and nothing that a client sends reaches another session.
//! - Messages pass byte for byte but for ids, line breaks between tokens, and a protocol version that is too new.
//! - A client that loses its connection may come back to any stream with `Last-Event-ID`, and gets what it has not seen, or an error for
//!   each request whose answer is not kept any more.
//! - Every queue, table and buffer has a limit in [`Config`], with a stated answer where it is reached.
//!
//! What it leaves out: processes, sessions, authentication, Origin, media types and body limits are other
//! parts' business. What is kept for clients that come back is kept in memory, and goes with the bridge.
//!
//! The modules in reading order: `json`, `id`, `envelope` (one message), `event_id` (a place on a stream), `framing`, `overlong` and
//! `outbox` (the server's side), `streams`
//! (the clients' side), `legacy` (the state machine between them), `shared` and `driver` (its lock and its task), `sse`, `respond`
//! and `exchange` (HTTP), `bridge` (all together). There is no `ports`: all that a bridge needs is a byte stream.

mod bridge;
mod config;
#[cfg(test)]
mod dice;
mod driver;
mod envelope;
mod error;
mod event_id;
mod exchange;
mod faults;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod id;
mod json;
mod legacy;
mod outbox;
mod overlong;
mod refusal;
mod respond;
mod rpc;
mod shared;
mod sse;
mod streams;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::{
    bridge::Bridge,
    config::{Config, Limits},
    error::{ConnectError, SnapshotError},
    exchange::{ServerEnded, Unread},
    faults::Fault,
    legacy::Snapshot,
};

/// What may go wrong while a response body is produced. Bodies of a bridge never fail.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
