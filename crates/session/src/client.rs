//! Requests of clients: dispatch, the opening of sessions, streams on dormant sessions, and errors.

mod admission;
pub(crate) mod dispatch;
pub(crate) mod exchange;
mod jsonrpc;
mod open;
mod parked_streams;
pub(crate) mod serve_error;
