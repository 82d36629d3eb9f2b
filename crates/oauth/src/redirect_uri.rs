//! Redirect URIs: the rules for registration, and the match of a presented URI with a registered
//! one.
//!
//! The match is exact (RFC 9700 section 2.1), except for the port of a loopback address (RFC 8252
//! section 7.3). A redirect URI is stored and used as the client wrote it: parsing only checks it.

mod scheme;

use url::{Host, Url};

/// The longest redirect URI, in bytes.
const MAX_LENGTH: usize = 2048;

/// Checks a redirect URI that a client registers or publishes, or that the configuration has.
///
/// # Errors
///
/// The reason, for the client's developer.
pub(crate) fn check(uri: &str) -> Result<(), &'static str> {
    if uri.len() > MAX_LENGTH {
        return Err("a redirect URI may have 2048 bytes at most");
    }
    // The URL parser drops tabs and line breaks, and a header takes only printable ASCII.
    if !uri.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("a redirect URI must consist of printable ASCII characters");
    }
    if uri.contains('#') {
        // RFC 6749 section 3.1.2.
        return Err("a redirect URI must not have a fragment");
    }
    let url = Url::parse(uri).map_err(|_| "a redirect URI must be an absolute URI")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a redirect URI must not have user information");
    }
    if url.query().is_some_and(has_response_parameter) {
        return Err("the query of a redirect URI must not have a parameter of the authorization response");
    }
    scheme::check(&url)
}

/// The redirect URIs of a client that `check` lets pass. A client may register several, of which
/// one suffices, so that a server drops the others (RFC 7591 section 3.2.1) and names in its
/// response those that are registered.
///
/// # Errors
///
/// The reason for the first URI, if none is left.
pub(crate) fn allowed(
    mut uris: Vec<String>,
    check: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<Vec<String>, &'static str> {
    let mut refused = None;
    uris.retain(|uri| match check(uri) {
        Ok(()) => true,
        Err(reason) => {
            refused.get_or_insert(reason);
            false
        }
    });
    match refused {
        Some(reason) if uris.is_empty() => Err(reason),
        _ if uris.is_empty() => Err("redirect_uris is missing"),
        _ => Ok(uris),
    }
}

/// Returns whether a presented redirect URI matches a registered one. A URI that fails [`check`]
/// matches none, whenever it was registered.
pub(crate) fn matches(registered: &str, presented: &str) -> bool {
    if check(presented).is_err() {
        return false;
    }
    if registered == presented {
        return true;
    }
    let (Ok(registered), Ok(presented)) = (Url::parse(registered), Url::parse(presented)) else {
        return false;
    };
    // RFC 8252 section 7.3: an application chooses the loopback port when it listens. `localhost`
    // is treated alike, since applications use it although section 8.3 advises against it.
    registered.scheme() == "http"
        && presented.scheme() == "http"
        && is_loopback(&registered)
        && registered.host() == presented.host()
        && registered.path() == presented.path()
        && registered.query() == presented.query()
}

/// A redirect URI without the port of a loopback address, which a match ignores.
pub(crate) fn without_loopback_port(uri: &str) -> String {
    let Ok(mut url) = Url::parse(uri) else {
        return uri.to_owned();
    };
    if url.scheme() == "http" && is_loopback(&url) && url.set_port(None).is_ok() {
        url.into()
    } else {
        uri.to_owned()
    }
}

/// The destination of a redirect URI, as the consent page shows it.
pub(crate) fn display(uri: &str) -> String {
    match Url::parse(uri) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {
            url.host_str().map_or_else(|| uri.to_owned(), str::to_owned)
        }
        Ok(url) => format!("an application on this device ({}:)", url.scheme()),
        Err(_) => uri.to_owned(),
    }
}

/// Returns whether a redirect URI leads to a program on the user's device (RFC 8252 section 8.6),
/// which may pose as any client.
pub(crate) fn is_local(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| !matches!(url.scheme(), "http" | "https") || is_loopback(&url))
}

/// Returns whether a redirect URI leads to another machine by https, so that no program on the
/// user's device can receive it.
pub(crate) fn is_remote_https(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|url| url.scheme() == "https" && !is_loopback(&url))
}

/// Returns whether a query has a parameter that the authorization response adds, or one that a
/// client could take for it: a parameter occurs once (RFC 6749 section 3.1), and many clients read
/// the first (RFC 6749 section 4.1.2, RFC 9207 section 2, OpenID Connect Session Management section
/// 3). Some clients ignore the case of a name or separate parameters by a semicolon, too.
fn has_response_parameter(query: &str) -> bool {
    let unified = query.replace(';', "&");
    url::form_urlencoded::parse(unified.as_bytes()).any(|(name, _)| {
        let name = name.trim().to_ascii_lowercase();
        name.starts_with("error") || matches!(name.as_str(), "code" | "iss" | "session_state" | "state")
    })
}

/// Returns whether the host of a URL is a loopback address.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_of_known_clients_are_accepted() {
        for uri in [
            "https://chatgpt.com/connector/oauth/abc123",
            "http://127.0.0.1:33418/",
            "http://[::1]:8080/callback",
            "http://localhost:6274/oauth/callback/debug",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "com.example.app:/callback",
        ] {
            assert_eq!(check(uri), Ok(()), "{uri}");
        }
    }

    #[test]
    fn dangerous_or_malformed_redirect_uris_are_refused() {
        for uri in [
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "vbscript:x",
            "about:blank",
            "blob:https://example.org/1",
            "http://example.org/callback",
            "http://127.0.0.1.example.org/",
            "http://localhost.example.org/",
            "https://example.org/#fragment",
            "https://user@example.org/",
            "https://example.org/a b",
            "https://example.org/\n",
            "java\tscript:alert(1)",
            "/callback",
            "",
        ] {
            assert!(check(uri).is_err(), "{uri}");
        }
        assert!(check(&format!("https://example.org/{}", "a".repeat(2048))).is_err());
    }

    #[test]
    fn response_parameters_in_a_redirect_uri_are_refused() {
        for query in [
            "iss=https://evil.example",
            "a=b&iss",
            "%69ss=x",
            "ISS=x",
            "a=b;iss=x",
            "code=x",
            "state=x",
            "+state=x",
            "error=x",
            "error_description=x",
            "error_uri=x",
            "session_state=x",
        ] {
            for base in [
                "https://client.example/cb",
                "http://127.0.0.1/cb",
                "com.example.app:/cb",
            ] {
                let uri = format!("{base}?{query}");
                assert!(check(&uri).is_err(), "{uri}");
                assert!(!matches(&uri, &uri), "{uri}: registered before the rule existed");
            }
        }
        for query in ["", "a=b", "issuer=x", "mode=code", "states=x", "app=code;b=c"] {
            assert_eq!(check(&format!("https://client.example/cb?{query}")), Ok(()), "{query}");
        }
    }

    #[test]
    fn only_the_port_of_a_loopback_address_may_differ() {
        assert!(matches("http://127.0.0.1/cb", "http://127.0.0.1:4000/cb"));
        assert!(matches("http://localhost:1/cb", "http://localhost:2/cb"));
        assert!(matches("http://[::1]:1/cb?a=b", "http://[::1]:2/cb?a=b"));
        assert!(!matches("http://127.0.0.1/cb", "http://127.0.0.1:4000/other"));
        assert!(!matches("http://127.0.0.1/cb", "http://127.0.0.1:4000/cb?x=y"));
        assert!(!matches("http://127.0.0.1/cb", "http://localhost/cb"));
        assert!(!matches("http://127.0.0.1/cb", "http://user@127.0.0.1/cb"));
        assert!(!matches("http://127.0.0.1/cb", "http://127.0.0.1/cb#x"));
        assert!(!matches("https://example.org/cb", "https://example.org:8443/cb"));
        assert!(!matches("https://example.org/cb", "https://example.org/cb/"));
        assert!(!matches("https://example.org/cb", "https://EXAMPLE.org/cb"));
        assert!(!matches("cursor://x/cb", "cursor://x/cb/.."));
    }
}
