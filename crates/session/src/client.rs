//! Requests of clients: dispatch, the opening of sessions, and errors.

mod admission;
pub(crate) mod dispatch;
mod open;
mod serve_error;
