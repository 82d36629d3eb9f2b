//! Scopes: what a client may ask for, and what it gets.
//!
//! There is one scope, for the MCP endpoint as a whole. What a session may do beyond it is decided by the scope of the
//! user's token at Forgejo, which is one per user and is not divided among clients: a narrower scope here would be a
//! promise that nothing keeps.

use super::metadata::SCOPE;

/// What a client asked for is no list of scopes (RFC 6749 section 3.3), or more than it has (section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidScope;

/// What a new grant gets. Nothing asked for means the one scope there is, and so does a scope that is unknown here:
/// clients ask for what other servers have, such as `openid`. The answer says what it came to (RFC 6749 section 3.3).
pub(super) fn of_request(asked: Option<&str>) -> Result<&'static str, InvalidScope> {
    match asked {
        Some(asked) if !is_list(asked) => Err(InvalidScope),
        Some(_) | None => Ok(SCOPE),
    }
}

/// Checks what is asked for when tokens are renewed: nothing that the grant does not have (RFC 6749 section 6).
pub(super) fn of_renewal(granted: &str, asked: Option<&str>) -> Result<(), InvalidScope> {
    match asked {
        Some(asked) if !is_list(asked) || !asked.split(' ').all(|scope| allows(granted, scope)) => Err(InvalidScope),
        Some(_) | None => Ok(()),
    }
}

/// Whether a grant has a scope.
pub(super) fn allows(granted: &str, scope: &str) -> bool {
    granted.split(' ').any(|has| has == scope)
}

/// RFC 6749 section 3.3: scope tokens with one space between them.
fn is_list(scopes: &str) -> bool {
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b));
    scopes.split(' ').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_scopes_are_left_out_and_none_means_the_default() {
        for asked in [None, Some("mcp"), Some("openid profile"), Some("mcp offline_access")] {
            assert_eq!(of_request(asked), Ok("mcp"), "{asked:?}");
        }
    }

    #[test]
    fn what_is_no_list_of_scopes_is_refused() {
        for asked in [" ", "mcp ", "a  b", "a\"b", "a\\b", "a\tb", "\u{e9}"] {
            assert_eq!(of_request(Some(asked)), Err(InvalidScope), "{asked:?}");
        }
    }

    #[test]
    fn a_renewal_gets_no_more_than_the_grant_has() {
        assert_eq!(of_renewal("mcp", None), Ok(()));
        assert_eq!(of_renewal("mcp", Some("mcp")), Ok(()));
        assert_eq!(of_renewal("mcp", Some("mcp admin")), Err(InvalidScope));
        assert_eq!(of_renewal("other", Some("mcp")), Err(InvalidScope));
    }

    #[test]
    fn a_scope_is_a_whole_word() {
        assert!(allows("a mcp b", "mcp"));
        assert!(!allows("mcpx xmcp", "mcp"));
    }
}
