//! The HTTP face over real loopback sockets, with an authority and an MCP service that script and record.

mod drain;
mod harness;
mod limits;
mod mcp;
mod metrics;
mod pages;
