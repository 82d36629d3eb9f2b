//! The HTTP face of the broker.
//!
//! It owns the socket and everything that is about HTTP alone: connections and their limits, which host and which origin
//! may ask, routing, the media types of `/mcp`, health, and the end of it all. It understands neither OAuth nor MCP: an
//! [`Authority`](ports::Authority) says who asks, and an [`McpService`](ports::McpService) answers.
//!
//! What holds at any time:
//!
//! - A request to `/mcp` passes its checks in one order: Host, Origin, bearer, method, media types, size. Its body is not
//!   read before its sender is known, and nothing is looked up for a host or origin that is not allowed.
//! - Nothing that is published derives from a request: [`PublicUrl`] is configuration.
//! - Each connection and each exchange is a task of one tracker, and [`Broker::serve`] returns when none is left.
//!
//! Left out so far: rate limits. TLS is the reverse proxy's.

mod app_state;
mod config;
mod connection;
mod cors;
mod exchange;
mod health;
mod host_origin;
mod http_error;
mod listener;
mod mcp;
mod media_type;
mod metrics;
pub mod ports;
mod request_body;
mod response;
mod route;
mod server;
mod url;

pub use config::{BuildInfo, Config, HttpLimits};
pub use server::{Broker, BrokerError};
pub use url::{PublicUrl, PublicUrlError};
