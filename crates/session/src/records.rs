//! Durable records: changes are written behind, sessions restored at start. SQLite is the usual
//! store.

pub(crate) mod batch;
pub(crate) mod restore;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub(crate) mod write_behind;
