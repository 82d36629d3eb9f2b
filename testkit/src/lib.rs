//! Test doubles, for development only: whatever a test of the broker needs around it.
//!
//! Each double scripts and records: a test turns its switches, and reads afterwards what it was asked. None of them knows
//! the broker's crates; they meet it where the world meets it, at HTTP, at standard input and output, and as a process.

pub mod broker;
pub mod browser;
pub mod child;
pub mod client;
pub mod conformance;
pub mod forgejo;
pub mod forwarder;
pub mod host;
pub mod plain;
mod serve;

pub use self::{browser::Browser, client::Client, forgejo::FakeForgejo, forwarder::Forwarder, host::Host};
