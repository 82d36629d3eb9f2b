//! Carries one JSON-RPC byte stream over many HTTP exchanges.
//!
//! A [`Bridge`] takes the byte stream of a local MCP server (newline-delimited JSON-RPC, as over
//! stdio) and serves it as the MCP endpoint of one session over Streamable HTTP. It matches
//! responses to requests in any order and with any client ids, routes the messages that the server
//! sends unasked to a stream that a client reads, and records the handshake, so that a fresh server
//! can replace one that has ended.
//!
//! Guarantees:
//! - A request gets exactly one response, with its id byte for byte: the server's, or a JSON-RPC
//!   error of the bridge. A response never reaches another request.
//! - No message of a server ends its connection; the end of its output, an io error and
//!   [`Bridge::close`] do. No client message reaches another session.
//! - Messages pass byte for byte except for ids, line breaks between tokens, and a protocol version
//!   that is too new.
//! - A client that loses its connection can resume any stream with `Last-Event-ID`. It gets the
//!   events that it has not seen, or an error for each request whose response is no longer kept.
//! - Every queue, table and buffer has a limit in [`Config`] and a defined answer at the limit.
//!
//! Out of scope: processes, sessions, authentication, `Origin`, media types and body limits. Replay
//! buffers live in memory and end with the bridge.
//!
//! Modules in reading order: `jsonrpc` (one message), `link` (the server's side: lines in and out),
//! `streams` (the clients' side: event streams and replay), `legacy` (the state machine between
//! them), `state` (its lock), `exchange` (HTTP), `bridge` (the public type). There is no `ports`
//! module: a bridge needs only a byte stream.

mod bridge;
mod config;
mod dropped;
mod error;
mod exchange;
#[cfg(test)]
mod fuzz_tests;
mod jsonrpc;
mod legacy;
mod link;
mod state;
mod streams;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

pub use self::{
    bridge::Bridge,
    config::{Config, QueueLimits},
    dropped::{DropCounts, DropReason},
    error::{ConnectError, SnapshotError},
    exchange::{NotProcessed, ServerEnded},
    legacy::Snapshot,
};

/// The error type of a response body. Bodies of a bridge never fail.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
