//! Host names in lists of the operator.

use url::Url;

/// Returns whether a text is a host name in the form in which a URL has it.
pub(crate) fn is_host(text: &str) -> bool {
    !text.contains('*') && Url::parse(&format!("https://{text}/")).is_ok_and(|url| url.host_str() == Some(text))
}

/// Returns whether a host is below a domain.
pub(crate) fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|below| below.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_no_other_part_of_a_url() {
        for host in [
            "example.org",
            "localhost",
            "127.0.0.1",
            "[::1]",
            "xn--bcher-kva.example",
        ] {
            assert!(is_host(host), "{host}");
        }
        for other in [
            "",
            "Example.org",
            "*.example.org",
            "example.org:443",
            "user@example.org",
            "example.org/path",
            "example.org?query",
            "example.org#fragment",
            "b\u{fc}cher.example",
            "exa mple.org",
        ] {
            assert!(!is_host(other), "{other}");
        }
    }
}
