//! Forms come from the pages of this server.
//!
//! Each form carries a proof that its page was made for the browser; this is the second wall, for where the cookie that
//! the proof is bound to can be planted (loopback, where names have no `__Host-`). Browsers say where a form comes from
//! (Fetch standard, "Origin" and "Sec-Fetch-Site"); what says nothing is no browser, and has no cookies of one.

use http::{HeaderMap, header};

use super::ServerState;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// Whether a form was sent from a page of this server, as far as the browser tells. `null`, which stands for an origin
/// that is kept secret, is another one.
pub(super) fn is_own_form(inner: &ServerState, headers: &HeaderMap) -> bool {
    is_from(&inner.settings.origin, headers)
}

fn is_from(own: &str, headers: &HeaderMap) -> bool {
    let origins = headers.get_all(header::ORIGIN);
    let sites = headers.get_all(SEC_FETCH_SITE);
    origins.iter().all(|origin| origin == own) && sites.iter().all(|site| site == "same-origin" || site == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_from_here_or_says_nothing_is_taken() {
        let own = "https://broker.example";
        let from = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            });
            is_from(own, &headers.collect())
        };
        assert!(from(&[]));
        assert!(from(&[("origin", own), ("sec-fetch-site", "same-origin")]));
        assert!(from(&[("sec-fetch-site", "none")]));
        for foreign in [
            [("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            [("origin", "null"), ("sec-fetch-site", "same-origin")],
            [("origin", own), ("sec-fetch-site", "same-site")],
            [("origin", own), ("sec-fetch-site", "cross-site")],
            [("origin", own), ("origin", "https://evil.example")],
            [
                ("origin", "https://broker.example:8443"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            assert!(!from(&foreign), "{foreign:?}");
        }
    }
}
