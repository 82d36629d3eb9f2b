//! A shared MCP server behind HTTP, as the byte stream that one session's bridge wants.
//!
//! With `child.mode = "http"` nothing is started for a session: what the bridge writes for a child goes, message by message, to one
//! MCP server that serves all users (Streamable HTTP, MCP 2025-11-25), and each request carries the Forgejo token of its own user as it
//! stands at that moment. So the clients' side, the record of the handshake and its replay are the bridge's, as with a child, and
//! records of sessions are the same in both modes.
//!
//! What holds:
//! - A message of a session goes out with the token of that session's user, and what comes back for it goes to that session.
//! - Headers are made here, both ways: nothing that a client sent reaches the server but the message itself, and no header of the
//!   server, its session id included, reaches a client.
//! - A request gets one answer, with its id: the server's, or an error that says what became of it.
//! - A server that has forgotten the session (404) is told the handshake anew, once for however many requests notice it.
//! - A token that the server refuses (401) is renewed once. Redirects are not followed: they would take the token elsewhere.
//!
//! The modules in reading order: `message` (one line), `events` (an event stream), `renewals` (how often tokens are renewed),
//! `endpoint` (one HTTP exchange), `trouble` (what goes wrong), `link` (one session toward the server), `answers` (how an answer comes), `listening` (the server's own messages), `carrier`
//! (the task that ties a link to a byte stream), `probe` (whether there is such a server at all).
//!
//! Left out: starting the server and watching it. Whoever operates it does that.

mod answers;
mod carrier;
mod endpoint;
mod events;
mod link;
mod listening;
mod message;
mod probe;
mod renewals;
#[cfg(test)]
mod tests;
mod trouble;

pub use self::{
    carrier::carry,
    endpoint::{Endpoint, EndpointConfig},
    link::{Link, PIPE},
    probe::ProbeError,
};
