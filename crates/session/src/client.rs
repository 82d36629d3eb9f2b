//! What a client does: requests are dispatched, sessions opened, and streams parked while a session is dormant.

mod activity_guard;
mod admission;
pub(crate) mod dispatch;
pub(crate) mod headers;
mod jsonrpc;
mod open;
mod parked_streams;
pub(crate) mod serve_error;
