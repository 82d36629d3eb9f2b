//! Requests of clients: dispatch, the opening of sessions, and errors.

mod admission;
pub(crate) mod dispatch;
mod implicit;
mod last_initialize;
mod open;
mod serve_error;
mod serve_session;
mod without_id;
