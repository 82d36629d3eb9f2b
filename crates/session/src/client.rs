//! Requests of clients: dispatch, the opening of sessions, streams on dormant sessions, and errors.

mod activity_guard;
mod admission;
pub(crate) mod dispatch;
pub(crate) mod headers;
mod jsonrpc;
mod open;
mod parked_streams;
pub(crate) mod serve_error;
