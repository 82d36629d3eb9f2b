//! Adapters: each implements a port of one crate by another crate, and only translates.

pub mod authority;
mod bridge;
pub mod child;
pub mod credentials;
pub mod mcp;
pub mod metrics;
pub mod records;
pub mod store;
pub mod upstream;
