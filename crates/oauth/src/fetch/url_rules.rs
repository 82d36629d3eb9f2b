//! Rules for the URLs that may be read.

use url::{Host, Url};

/// The longest URL, in bytes.
const MAX_LENGTH: usize = 1024;

/// Checks the form of a URL, without the network.
///
/// # Errors
///
/// The fault, for the client's developer.
pub(crate) fn check_url(text: &str) -> Result<Url, &'static str> {
    if text.len() > MAX_LENGTH {
        return Err("the URL is too long");
    }
    // The parser drops tabs and line breaks, and turns backslashes into slashes.
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.contains('\\') {
        return Err("the URL must consist of printable ASCII characters");
    }
    if !text.starts_with("https://") {
        return Err("the URL must be https");
    }
    let url = Url::parse(text).map_err(|_| "this is no URL")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not have user information");
    }
    if text.contains('#') {
        return Err("the URL must not have a fragment");
    }
    match url.host() {
        // The parser knows every spelling of an IPv4 address (`0x7f.1`, `2130706433`, full-width
        // digits) as one.
        Some(Host::Domain(name)) if is_public_name(name) => Ok(url),
        Some(Host::Domain(_)) => Err("the URL must have a host name of the public network"),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => Err("the URL must have a host name, not an address"),
    }
}

/// A name in the public network has a dot, and is not below a special-use name (RFC 6761, RFC 6762,
/// RFC 7686, RFC 8375, RFC 9476).
fn is_public_name(name: &str) -> bool {
    const SPECIAL_USE: [&str; 9] = [
        "localhost",
        "local",
        "internal",
        "home.arpa",
        "onion",
        "alt",
        "invalid",
        "localdomain",
        "lan",
    ];
    let name = name.strip_suffix('.').unwrap_or(name);
    let below = |special: &str| name == special || name.strip_suffix(special).is_some_and(|rest| rest.ends_with('.'));
    name.contains('.') && !SPECIAL_USE.iter().any(|special| below(special))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_https_url_is_accepted() {
        for url in [
            "https://client.example/metadata.json",
            "https://client.example:8443/a/b?c=d",
            "https://xn--bcher-kva.example/",
            "https://localhost.example/",
        ] {
            assert!(check_url(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn other_schemes_addresses_and_local_names_are_refused() {
        for url in [
            "http://client.example/",
            "HTTPS://client.example/",
            "ftp://client.example/",
            "file:///etc/passwd",
            "gopher://client.example/",
            "https:client.example",
            "https:/client.example",
            "https://",
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://127.0.0.1./",
            "https://%31%32%37.0.0.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[fd00::1]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://localhost/",
            "https://localhost./",
            "https://a.localhost/",
            "https://printer.local/",
            "https://metadata.google.internal/",
            "https://router.home.arpa/",
            "https://intranet/",
            "https://user@client.example/",
            "https://user:secret@client.example/",
            "https://client.example@127.0.0.1/",
            "https://client.example/#fragment",
            "https://client.example/#",
            "https://client.example\\@127.0.0.1/",
            "https://client.example/a b",
            "https://cli\tent.example/",
            "https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
            "",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
        assert!(check_url(&format!("https://client.example/{}", "a".repeat(1024))).is_err());
    }
}
