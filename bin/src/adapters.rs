//! Adapters: each implements a port of one crate by another crate, and only translates.

pub(crate) mod authority;
pub(crate) mod child;
pub(crate) mod conversation;
pub(crate) mod credentials;
pub(crate) mod era;
pub(crate) mod grant_events;
pub(crate) mod mcp;
pub(crate) mod metrics;
pub(crate) mod program;
pub(crate) mod records;
pub(crate) mod request_states;
pub(crate) mod shared_server;
pub(crate) mod store;
