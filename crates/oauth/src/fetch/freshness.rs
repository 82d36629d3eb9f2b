//! The freshness lifetime in the headers of a response (RFC 9111 section 4.2.1).
//!
//! Only `Cache-Control` is read: `Expires` needs the clock of the other side, and a response
//! without either gets the minimum lifetime of the cache.

use std::time::Duration;

use http::{HeaderMap, header};

/// The freshness lifetime, if the headers have one.
pub(super) fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut fresh_for = None;
    let fields = headers.get_all(header::CACHE_CONTROL).iter();
    for directive in fields
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            // The smaller of two counts, and one that is no number makes the response stale
            // (section 4.2.1).
            let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
            let given = Duration::from_secs(seconds);
            fresh_for = Some(fresh_for.map_or(given, |former: Duration| former.min(given)));
        }
    }
    let age = headers
        .get(header::AGE)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok());
    fresh_for.map(|fresh| fresh.saturating_sub(Duration::from_secs(age.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh_for(fields: &[(&str, &str)]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(header::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        lifetime(&headers).map(|duration| duration.as_secs())
    }

    #[test]
    fn max_age_counts_from_creation_of_response() {
        assert_eq!(fresh_for(&[("cache-control", "public, max-age=3600")]), Some(3600));
        assert_eq!(fresh_for(&[("cache-control", "Max-Age=\"60\"")]), Some(60));
        assert_eq!(fresh_for(&[("cache-control", "max-age=60"), ("age", "20")]), Some(40));
        assert_eq!(fresh_for(&[("cache-control", "max-age=60"), ("age", "100")]), Some(0));
    }

    #[test]
    fn uncacheable_response_is_stale_at_once() {
        for value in [
            "no-store",
            "max-age=60, no-cache",
            "private, no-store, max-age=9",
            "max-age=x",
            "max-age=-1",
        ] {
            assert_eq!(fresh_for(&[("cache-control", value)]), Some(0), "{value}");
        }
        assert_eq!(
            fresh_for(&[("cache-control", "max-age=60"), ("cache-control", "max-age=5")]),
            Some(5)
        );
    }

    #[test]
    fn missing_cache_control_has_no_lifetime() {
        assert_eq!(fresh_for(&[]), None);
        assert_eq!(fresh_for(&[("cache-control", "public")]), None);
    }
}
