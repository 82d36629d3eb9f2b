//! What is kept of a session: changes written behind, sessions restored at start, and the SQLite store.

pub(crate) mod batch;
pub(crate) mod restore;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub(crate) mod write_behind;
