//! Links to a server over Streamable HTTP (MCP 2025-11-25 or 2026-07-28): each message is a request
//! with the user's current token, and all conversations may share one server.
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
//! `era_memory` (the era of the server), `endpoint` (one HTTP exchange), `user` (the endpoint with
//! the token of a user), `era` (the question for the era), `session` (one session at the server),
//! `responses` and `listening` (its messages), `reopening` (of a session that is forgotten), `task`
//! (the task of a link), `mirrored` and `modern` (the same for a server of 2026-07-28), `probe` (a
//! check that the server exists).

mod endpoint;
mod era;
mod era_memory;
mod error;
mod events;
mod listening;
mod mirrored;
mod modern;
mod probe;
mod reopening;
mod responses;
mod session;
pub(crate) mod task;
mod token;
mod user;

pub use self::{
    endpoint::{Endpoint, EndpointConfig},
    token::{BoxFuture, TokenError, TokenSource},
};
