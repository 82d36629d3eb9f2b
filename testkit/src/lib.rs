//! Test doubles, for development only.
//!
//! Each double can be scripted before and inspected after an exchange. The doubles do not depend on
//! the broker's crates: they meet the broker over HTTP, over standard input and output, and as a
//! process.
#![expect(
    missing_docs,
    reason = "for development only: the names speak for themselves, and a comment says what a name cannot"
)]
#![expect(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    reason = "an error or a panic of a double fails the test that uses it, and its text says why"
)]

pub mod broker;
pub mod browser;
pub mod client;
pub mod conformance;
pub mod forgejo;
pub mod forgejo_mcp;
pub mod forwarder;
pub mod host;
pub mod http_client;
mod http_server;

pub use self::{browser::Browser, client::Client, forgejo::FakeForgejo, forwarder::Forwarder, host::Host};
