//! Tests of the HTTP server over loopback sockets, with a scripted authority and MCP service.

mod drain;
mod harness;
mod limits;
mod mcp_checks;
mod metrics;
mod pages;
mod sharing;
