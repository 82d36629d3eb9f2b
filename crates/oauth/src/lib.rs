//! The OAuth 2.1 authorization server of the broker, and the guard that turns an access token into
//! a [`Caller`].
//!
//! MCP clients register and request tokens here. Users consent on a page and sign in at Forgejo. A
//! client gets an opaque token of the broker, never a Forgejo token: each user's Forgejo tokens
//! stay in an [`Account`], sealed at rest.
//!
//! Modules in reading order:
//!
//! - [`config`]: the configuration and its validation;
//! - [`ports`]: the traits that the crate needs (a store, an upstream, a clock, a listener for the
//!   end of grants);
//! - [`ids`]: identifiers of clients, grants, users, pairs of tokens, exchanges and processes;
//! - [`records`]: the records in the store;
//! - [`server`]: the endpoints and the guard;
//! - [`account`]: the one upstream credential of a user, renewed in single flight;
//! - [`seal`]: the key file, and sealing with its keys;
//! - [`forgejo`]: sign-in at Forgejo, the usual upstream;
//! - [`fetch`]: the hardened fetcher of URLs that clients choose;
//! - `sqlite`: the usual store (feature `sqlite`);
//! - `testing`: a clock that is set by hand (feature `testing`).
//!
//! Invariants: everything published derives from `public_url`, nothing from a request header;
//! tokens, codes and client secrets are stored as SHA-256 only; upstream tokens are on disk before
//! they are used; no secret reaches a log, an error or a `Debug`.
//!
//! Left out: listeners, limits by address, `Host` and `Origin` checks (which come before this
//! crate), and sessions.

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
