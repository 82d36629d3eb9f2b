//! Scopes of grants.
//!
//! There is one scope, for the MCP endpoint as a whole. The scope of the user's token at Forgejo
//! limits a session further; all clients of a user share that token, so that nothing could enforce
//! a narrower scope here.
//!
//! Clients may also request `offline_access` (OpenID Connect Core section 11). It changes nothing,
//! since every grant has a refresh token, and is no scope of the resource: neither a grant nor a
//! challenge has it (MCP 2026-07-28 authorization, "Refresh Tokens").

/// The broker's one scope: use of the MCP endpoint.
pub(super) const SCOPE: &str = "mcp";

/// The scopes that clients may request of the authorization server. Some clients use refresh tokens
/// only if `offline_access` is among them.
pub(super) const REQUESTABLE: [&str; 2] = [SCOPE, "offline_access"];

/// The scope of a new grant, `None` if the requested one is malformed (RFC 6749 section 3.3). It is
/// the one scope there is, also for a request without a scope or with unknown ones, since clients
/// request scopes of other servers such as `openid`. The token response states it (section 3.3).
pub(super) fn for_new_grant(requested: Option<&str>) -> Option<&'static str> {
    requested.is_none_or(is_scope_list).then_some(SCOPE)
}

/// Returns whether the scope of a refresh request is well formed and within the grant (RFC 6749
/// section 6). Unknown scopes and `offline_access` are ignored, as for a new grant: a client that
/// repeats the scopes of its first request at each refresh would lose its tokens.
pub(super) fn allows_refresh(granted: &str, requested: Option<&str>) -> bool {
    let exceeds = |requested: &str| contains(requested, SCOPE) && !contains(granted, SCOPE);
    requested.is_none_or(|requested| is_scope_list(requested) && !exceeds(requested))
}

/// Returns whether the scopes of a grant contain a scope.
pub(super) fn contains(granted: &str, scope: &str) -> bool {
    granted.split(' ').any(|has| has == scope)
}

/// RFC 6749 section 3.3: scope tokens with one space between them.
fn is_scope_list(scopes: &str) -> bool {
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    scopes.split(' ').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_absent_scopes_yield_the_default() {
        for requested in [
            None,
            Some("mcp"),
            Some("openid profile"),
            Some("mcp offline_access"),
            Some("offline_access"),
        ] {
            assert_eq!(for_new_grant(requested), Some("mcp"), "{requested:?}");
        }
    }

    #[test]
    fn a_malformed_scope_is_refused() {
        for requested in [" ", "mcp ", "a  b", "a\"b", "a\\b", "a\tb", "\u{e9}"] {
            assert_eq!(for_new_grant(Some(requested)), None, "{requested:?}");
        }
    }

    #[test]
    fn a_refresh_cannot_exceed_the_grant() {
        assert!(allows_refresh("mcp", None));
        assert!(allows_refresh("mcp", Some("mcp")));
        assert!(!allows_refresh("other", Some("mcp")));
        assert!(!allows_refresh("other", Some("offline_access mcp")));
        assert!(!allows_refresh("mcp", Some("mcp ")));
    }

    #[test]
    fn a_refresh_ignores_unknown_scopes() {
        for requested in ["mcp admin", "offline_access", "openid mcp offline_access", "MCP"] {
            assert!(allows_refresh("mcp", Some(requested)), "{requested}");
        }
        assert!(allows_refresh("other", Some("admin")));
    }

    #[test]
    fn a_scope_is_a_whole_word() {
        assert!(contains("a mcp b", "mcp"));
        assert!(!contains("mcpx xmcp", "mcp"));
    }
}
