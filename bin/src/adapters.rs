//! How one crate's port is met by another crate: newtypes, each a translation and nothing more.

pub mod authority;
pub mod child;
pub mod credentials;
pub mod mcp;
pub mod metrics;
pub mod records;
pub mod store;
pub mod upstream;
