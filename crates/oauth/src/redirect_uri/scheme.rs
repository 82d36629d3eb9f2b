//! The schemes of redirect URIs.
//!
//! A redirect opens whichever program of the user's device has claimed the scheme, with a URI that
//! a stranger has registered. Thousands of schemes do something on one system or another (run a
//! diagnosis, install a profile, open a shell), so that only these are allowed: the web, the
//! loopback addresses, schemes that their owner formed from a domain name, and those of well-known
//! MCP clients.

use url::Url;

use super::is_loopback;

/// Schemes without a dot under which well-known MCP clients receive the response.
const KNOWN: [&str; 9] = [
    "claude",
    "cursor",
    "raycast",
    "vscode",
    "vscode-insiders",
    "vscodium",
    "warp",
    "windsurf",
    "zed",
];

/// Checks the scheme of a redirect URI.
///
/// # Errors
///
/// The reason, for the client's developer.
pub(super) fn check(url: &Url) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => Ok(()),
        // RFC 8252 section 7.3.
        "http" if is_loopback(url) => Ok(()),
        "http" => Err("a redirect URI with http must point to a loopback address"),
        scheme if is_domain_reversed(scheme) || KNOWN.contains(&scheme) => Ok(()),
        _ => Err(
            "the scheme of a redirect URI must be https, a domain name in reverse order, or that of an application that \
             this server knows",
        ),
    }
}

/// Returns whether a scheme has the form of a domain name in reverse order (RFC 8252 section 7.1):
/// labels with dots between them, a top-level domain first.
fn is_domain_reversed(scheme: &str) -> bool {
    let mut labels = scheme.split('.');
    let top = labels.next().unwrap_or_default();
    let is_top = top.len() >= 2 && (top.bytes().all(|b| b.is_ascii_alphabetic()) || top.starts_with("xn--"));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let mut rest = labels.peekable();
    is_top && rest.peek().is_some() && rest.all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_allowed(uri: &str) -> bool {
        check(&Url::parse(uri).unwrap()).is_ok()
    }

    #[test]
    fn schemes_of_the_web_of_domains_and_of_known_clients_are_allowed() {
        for uri in [
            "https://client.example/",
            "http://127.0.0.1/",
            "http://localhost:1/",
            "com.example.app:/callback",
            "com.raycast:/oauth",
            "COM.EXAMPLE.App:/callback",
            "xn--p1ai.example-1.app2:/callback",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "vscode-insiders://publisher.extension/callback",
            "warp://mcp/oauth2callback",
        ] {
            assert!(is_allowed(uri), "{uri}");
        }
    }

    #[test]
    fn all_other_schemes_are_refused() {
        for uri in [
            "http://client.example/",
            "javascript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "vbscript:x",
            "about:blank",
            "blob:https://client.example/1",
            "ftp://client.example/",
            "feed:javascript:alert(1)",
            "view-source:https://client.example/",
            "ms-msdt:/id",
            "ms-officecmd:x",
            "search-ms:query=x",
            "ssh://-oProxyCommand=x",
            "itms-services://?action=download-manifest",
            "intent://x#Intent",
            "tel:1",
            "x-apple.systempreferences:x",
            "x-app:/callback",
            "web+mcp:/callback",
            "a.b:/callback",
            "com.:/callback",
            "com..app:/callback",
            "com.-app:/callback",
            "com.ex+ample:/callback",
        ] {
            assert!(!is_allowed(uri), "{uri}");
        }
    }
}
