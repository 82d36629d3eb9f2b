//! Protection of forms against cross-site request forgery.
//!
//! Each form carries a token, a keyed hash over the browser's cookie and the content of its page.
//! The check of the origin is a second defense, for loopback addresses, where cookie names have no
//! `__Host-` and the cookie can be planted. Browsers state the origin of a form (Fetch standard,
//! "Origin" and "Sec-Fetch-Site"); a request without either header does not come from a browser and
//! has no cookies of one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, header};

use super::params::Params;
use crate::seal::Sealer;

const SEC_FETCH_SITE: &str = "sec-fetch-site";

/// The field of a form that carries its token.
pub(super) const FIELD: &str = "csrf";

/// The token of a form, for its hidden field [`FIELD`].
pub(super) fn token(sealer: &Sealer, purpose: &str, parts: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(sealer.keyed_hash(purpose, parts))
}

/// Returns whether a form carries the token for `parts`.
pub(super) fn verify(sealer: &Sealer, purpose: &str, parts: &[&str], form: &Params) -> bool {
    let token = URL_SAFE_NO_PAD.decode(form.value(FIELD).unwrap_or_default());
    token.is_ok_and(|token| sealer.matches_keyed_hash(purpose, parts, &token))
}

/// Returns whether a page of this origin sent the form, as far as the browser states it. The origin
/// `null` is a foreign one.
pub(super) fn is_same_origin(origin: &str, headers: &HeaderMap) -> bool {
    let origins = headers.get_all(header::ORIGIN);
    let sites = headers.get_all(SEC_FETCH_SITE);
    origins.iter().all(|value| value == origin) && sites.iter().all(|site| site == "same-origin" || site == "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_this_origin_or_without_an_origin_are_accepted() {
        let own = "https://broker.example";
        let from = |pairs: &[(&'static str, &'static str)]| {
            let headers = pairs.iter().map(|(name, value)| {
                (
                    http::HeaderName::from_static(name),
                    http::HeaderValue::from_static(value),
                )
            });
            is_same_origin(own, &headers.collect())
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
