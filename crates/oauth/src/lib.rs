//! The OAuth 2.1 authorization server of the broker, and the guard that turns an access token into
//! a [`Caller`].
//!
//! MCP clients register here and request tokens. Users consent on a page and sign in at Forgejo. A
//! client gets opaque tokens of the broker and never sees a Forgejo token: the Forgejo tokens of
//! each user stay in an [`Account`] and are encrypted in the store.
//!
//! Modules in reading order:
//!
//! - [`config`]: the configuration and its validation;
//! - [`ports`]: the traits that the crate needs: a store, an upstream, a clock, and a receiver of
//!   events about grants;
//! - [`ids`]: newtypes for identifiers;
//! - [`records`]: the records in the store;
//! - [`server`]: the endpoints and the guard;
//! - [`account`]: the Forgejo tokens of a user, which one caller at a time renews;
//! - [`seal`]: encryption with the keys of the key file;
//! - [`forgejo`]: the client for Forgejo, which implements [`ports::Upstream`];
//! - [`fetch`]: the hardened fetcher of URLs that clients choose;
//! - private modules: clients (`cimd`, `client_metadata`, `client_name`, `document_cache`,
//!   `redirect_uri`, `allow_list`, `block_list`), proofs (`pkce`, `jwt`, `secret`), access
//!   (`access_tokens`, `access_token_cache`, `revocation`, `rate_limiter`), writes of new tokens
//!   (`code_exchanges`, `keepalive`, `retry`), and `outbound_http`;
//! - `sqlite` (feature `sqlite`): a store in SQLite;
//! - `testing` (feature `testing`): a clock that is set by hand, and a network of test hosts.
//!
//! Invariants:
//!
//! - All published URLs derive from `public_url`, none from a request header.
//! - The store holds tokens, codes and client secrets only as SHA-256.
//! - Upstream tokens are on disk before they are used.
//! - No secret reaches a log, an error or a `Debug`.
//!
//! Left out: listeners, limits by address, checks of `Host` and `Origin` (all of which come before
//! this crate), and sessions.

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
mod allowed_users;
mod block_list;
mod cimd;
mod client_metadata;
mod client_name;
mod code_exchanges;
mod content_type;
mod document_cache;
mod host_name;
mod jwt;
mod keepalive;
mod outbound_http;
mod pkce;
mod rate_limiter;
mod redirect_uri;
mod retry;
mod revocation;
mod secret;

pub use account::{Account, AccountError, KeyCheckError, UpstreamToken};
pub use config::Config;
pub use server::{AuthorizationServer, Body, BoxError, Caller};
