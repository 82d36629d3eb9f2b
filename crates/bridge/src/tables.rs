//! What a conversation keeps: its links, the requests of both sides in flight, the client's
//! settings, and what the client has seen of the server's lists.
//!
//! Each table is plain data with its own invariants; `machine` decides what enters and leaves.

pub(crate) mod calls;
pub(crate) mod links;
pub(crate) mod lists;
pub(crate) mod modern_calls;
pub(crate) mod questions;
pub(crate) mod settings;
pub(crate) mod subscriptions;
pub(crate) mod tasks;
pub(crate) mod timers;
