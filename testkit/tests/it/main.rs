//! The doubles, over real HTTP and real pipes.

mod application;
mod browser_sign_in;
mod forgejo_api;
mod forgejo_consent;
mod forgejo_faults;
#[cfg(test)]
mod forgejo_mcp_http;
#[cfg(test)]
mod forgejo_mcp_misbehavior;
#[cfg(test)]
mod forgejo_mcp_stdio;
mod forgejo_refresh_tokens;
mod forgejo_token_endpoint;
