//! Links to a server over Streamable HTTP (MCP 2025-11-25): each message is a request with the
//! user's current token, and all conversations may share one server.
//!
//! Invariants:
//! - A message is sent with the token of its own user, and its response goes to its own link.
//! - All headers are made here, in both directions: of a client's request only the message reaches
//!   the server, and no header of the server, its session id included, reaches a client.
//! - A request gets one response with its id: the server's, or an error with the reason.
//! - A server that has forgotten the session gets the handshake again, once for all requests that
//!   notice it.
//! - A token that the server refuses (401) is replaced once. Redirects are not followed: they would
//!   take the token elsewhere.
//! - A call counts as read by the server from the first byte of its request on.
//!
//! The modules in reading order: `events` (an event stream), `token` (the port), `error`,
//! `endpoint` (one HTTP exchange), `session` (one session at the server), `responses` and
//! `listening` (its messages), `reopening` (of a session that is forgotten), `task` (the task of
//! a link), `probe` (a check that the server exists).

mod endpoint;
mod error;
mod events;
mod listening;
mod probe;
mod reopening;
mod responses;
mod session;
pub(crate) mod task;
mod token;

pub use self::{
    endpoint::{Endpoint, EndpointConfig},
    token::{BoxFuture, TokenError, TokenSource},
};
