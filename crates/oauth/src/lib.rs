//! The OAuth 2.1 authorization server of the broker, and the guard that turns a bearer into a [`Caller`].
//!
//! MCP clients register and ask for tokens here; users say yes on a consent page and sign in at Forgejo. What a
//! client gets is an opaque token of the broker, never a Forgejo token: those are kept in [`Account`]s, sealed at
//! rest, one per user.
//!
//! Modules in reading order:
//!
//! - [`config`]: what an operator decides, checked as a whole;
//! - [`ports`]: what the crate needs from outside (a store, an upstream, a clock, an ear for endings);
//! - [`ids`]: identifiers of clients, grants, users, pairs of tokens, exchanges and processes;
//! - [`records`]: what the store keeps;
//! - [`server`]: the endpoints and the guard;
//! - [`account`]: the one upstream credential of a user, renewed in single flight;
//! - [`seal`]: the key file and what it protects;
//! - [`forgejo`]: sign-in at Forgejo, the usual upstream;
//! - [`fetch`]: the one way to read a URL that a client chose;
//! - `sqlite`: the usual store (feature `sqlite`);
//! - `testing`: a clock that is set by hand (feature `testing`).
//!
//! Invariants: everything published derives from `public_url`, nothing from a request header; tokens, codes and client
//! secrets are stored as SHA-256 only; a pair of upstream tokens is on disk before it is used; no secret reaches a
//! log, an error or a `Debug`.
//!
//! Left out: listeners, rate limits, `Host` and `Origin` checks (they come before this crate), and sessions.

pub mod account;
pub mod config;
pub mod fetch;
pub mod forgejo;
pub mod ids;
pub mod ports;
pub mod records;
pub mod seal;
pub mod server;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;

mod access_token_cache;
mod access_tokens;
mod allow_list;
mod cimd;
mod client_metadata;
mod client_name;
mod code_exchanges;
mod document_cache;
mod jwt;
mod keepalive;
mod outbound_http;
mod pkce;
mod rate_limiter;
mod redirect_uri;
mod retry;
mod revocation;
mod secret;

pub use account::{Account, AccountError, UpstreamToken};
pub use config::Config;
pub use server::{AuthorizationServer, Body, BoxError, Caller};
