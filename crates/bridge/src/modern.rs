//! The protocol of 2026-07-28 on the side of the client: stateless requests that say in `_meta` who
//! sends them, with which version and which capabilities.
//!
//! The state machine speaks the protocol of 2025-11-25 to its servers. This module reads and checks
//! a modern request, and rewrites requests and results between the two; it keeps no state. What has
//! to be remembered (open questions, subscriptions) is in `machine::modern`.
//!
//! `request` checks a request in the order that the revision gives (`headers` has the mirrored
//! headers, `capabilities` what the client declares), `error` has its error codes, `tools` what has
//! to be known of the server's tools, `results` rewrites results and errors, `input` reads the
//! answers to questions, and `state` is the `requestState` of a call that waits for them.

pub(crate) mod capabilities;
pub(crate) mod error;
pub(crate) mod headers;
pub(crate) mod input;
pub(crate) mod log_level;
pub(crate) mod request;
pub(crate) mod results;
pub(crate) mod state;
pub(crate) mod tools;

pub(crate) use self::{
    capabilities::ClientCapabilities, error::ModernError, log_level::LogLevel, request::ModernRequest,
};

/// The version that this module speaks.
pub(crate) const VERSION: &str = "2026-07-28";
/// The members of `_meta` that the protocol owns begin with this.
pub(crate) const META_PREFIX: &str = "io.modelcontextprotocol/";
pub(crate) const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
pub(crate) const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
pub(crate) const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
pub(crate) const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
pub(crate) const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
pub(crate) const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
pub(crate) const META_RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
/// The members of a question's `_meta` with which a server, or the translation for a modern one,
/// names the key of the answer and the call that it is about.
pub(crate) const KEY_HINT: &str = "forgejo-mcp-broker/input-key";
pub(crate) const CALL_HINT: &str = "forgejo-mcp-broker/call";
/// The extension for tasks (SEP-2663).
pub(crate) const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// True for a version of this era: a date from [`VERSION`] on.
pub(crate) fn is_modern(version: &str) -> bool {
    let bytes = version.as_bytes();
    let is_date = bytes.len() == VERSION.len()
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    is_date && version >= VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_era_begins_with_its_first_version() {
        for (version, modern) in [
            ("2026-07-28", true),
            ("2027-01-01", true),
            ("2025-11-25", false),
            ("DRAFT-2026-v1", false),
            ("2026-07-28x", false),
            ("", false),
        ] {
            assert_eq!(is_modern(version), modern, "{version}");
        }
    }
}
