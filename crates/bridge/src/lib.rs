//! The client's side of an MCP session, and the servers that serve it one after the other.
//!
//! A [`Conversation`] is the MCP endpoint of one session over Streamable HTTP, for as long as the
//! session lasts. Its servers speak newline-delimited JSON-RPC over a byte stream, as over stdio;
//! each is connected by a [`Link`]. Servers are replaced while requests, questions and streams are
//! open: the conversation matches responses to requests in any order and with any client ids,
//! routes the messages that servers send unasked to a stream that a client reads, and replays the
//! handshake and the client's settings to each new server.
//!
//! Guarantees:
//! - A request gets exactly one response, with its id byte for byte: a server's, or a JSON-RPC
//!   error of the conversation. A response never reaches another request.
//! - An answer, a progress or a cancellation of the client reaches the server that it is for, or
//!   none. The end of a server settles what was in flight on it, and nothing else.
//! - No message of a server ends its link; the end of its output, an io error and [`Link::close`]
//!   do. No client message reaches another session.
//! - Messages pass byte for byte except for ids, progress tokens, line breaks between tokens, and a
//!   protocol version that is too new.
//! - A client that loses its connection can resume any stream with `Last-Event-ID`. It gets the
//!   events that it has not seen, or an error for each request whose response is no longer kept.
//! - Every queue, table and buffer has a limit in [`Config`] and a defined answer at the limit.
//!
//! Out of scope: processes, sessions, authentication, `Origin`, media types and body limits. Replay
//! buffers live in memory and end with the conversation.
//!
//! Modules in reading order: `jsonrpc` (one message), `link` (a server's side: lines in and out),
//! `streams` (the clients' side: event streams and replay), `tables` (what is in flight), `machine`
//! (the state machine over all of them), `shared` (its lock), `exchange` (HTTP), `conversation`
//! (the public type). The port is [`Owner`].

mod config;
mod conversation;
mod dropped;
mod era_counts;
mod error;
mod exchange;
#[cfg(test)]
mod fuzz_tests;
mod jsonrpc;
mod link;
mod machine;
mod memory;
mod modern;
mod owner;
mod parked_calls;
mod parsed;
mod route;
mod shared;
mod streams;
mod tables;
mod versions;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;

#[cfg(feature = "http")]
pub use self::link::http;
pub use self::{
    config::{Config, QueueLimits},
    conversation::Conversation,
    dropped::{DropCounts, DropReason},
    era_counts::EraCounts,
    error::{ConnectError, Refusal, SnapshotError},
    exchange::Outcome,
    link::{
        Link,
        era::{EraAnswer, ServerEra, ask_era},
    },
    machine::Snapshot,
    memory::MemoryBudget,
    modern::state::StateSealer,
    owner::Owner,
    parked_calls::ParkedCalls,
    route::{Destination, ignores_session_id, initial_snapshot, route},
};

/// The error type of a response body. Bodies of a conversation never fail.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a response: whole, or a stream of server-sent events.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
