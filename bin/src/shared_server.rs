//! A shared MCP server over HTTP, as the byte stream that the bridge of one session expects.
//!
//! With `child.mode = "http"` no process is started for a session: each message that the bridge
//! writes goes to one MCP server that serves all users (Streamable HTTP, MCP 2025-11-25), and each
//! request carries the current Forgejo token of its user. The client's side, the snapshot of the
//! handshake and its replay belong to the bridge, as with a child, and session records are the same
//! in both modes.
//!
//! Invariants:
//! - A message of a session is sent with the token of that session's user, and its response goes to
//!   that session.
//! - All headers are made here, in both directions: of a client's request only the message reaches
//!   the server, and no header of the server, its session id included, reaches a client.
//! - A request gets one response with its id: the server's, or an error with the reason.
//! - A server that has forgotten the session (404) gets the handshake again, once for all requests
//!   that notice it.
//! - A token that the server refuses (401) is renewed once. Redirects are not followed: they would
//!   take the token elsewhere.
//!
//! The modules in reading order: `message` (one line), `events` (an event stream),
//! `renewal_limiter` (the rate of token renewals), `error`, `endpoint` (one HTTP exchange),
//! `session` (one session at the server; its children are `recovery`, `responses`, `listening` for
//! the server's own messages, and `pump`, which connects it with a byte stream), `probe` (a check
//! that the server exists).
//!
//! Left out: starting and watching the server. Its operator does that.

mod endpoint;
mod error;
mod events;
mod message;
mod probe;
mod renewal_limiter;
mod session;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    endpoint::{Endpoint, EndpointConfig},
    session::{PIPE_CAPACITY, SharedServerSession, pump},
};
