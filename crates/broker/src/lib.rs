//! The HTTP server of the broker.
//!
//! It owns the socket and everything that concerns HTTP alone: connections and their limits,
//! allowed hosts and origins, routing, the media types of `/mcp`, health, and the drain. It knows
//! neither OAuth nor MCP: an [`Authority`](ports::Authority) authenticates the caller, and an
//! [`McpService`](ports::McpService) answers.
//!
//! Invariants:
//!
//! - A request to `/mcp` passes its checks in a fixed order: Host, Origin, bearer, exchanges of the
//!   grant, method, media types, size. Its body is not read before its sender is authenticated, and
//!   nothing is looked up for a host or origin that is not allowed.
//! - Nothing that is published derives from a request: [`PublicUrl`] is configuration.
//! - Each connection and each request is a task of one tracker, and [`Broker::serve`] returns once
//!   none is left.
//!
//! This crate has no rate limits; those of `/oauth/*` are in the crate `oauth`. A reverse proxy
//! terminates TLS.

mod app_state;
mod body_budget;
mod config;
mod connection;
mod connection_table;
mod cors;
mod exchange_limiter;
mod handler;
mod health;
mod host_origin;
mod http_error;
mod listener;
mod mcp;
mod media_type;
mod metrics;
pub mod ports;
mod probe;
mod readiness;
mod request_body;
mod response;
mod route;
mod server;
mod url;
mod usage;

pub use config::{BuildInfo, Config, HttpLimits};
pub use server::{Broker, BrokerError};
pub use url::{PublicUrl, PublicUrlError};
