//! The freshness lifetime in the headers of a response (RFC 9111 section 4.2.1).
//!
//! The document serves all users, so this is a shared cache: `s-maxage` and `private` count.
//! `Expires` counts from the `Date` of the same response, so that the clocks need not agree.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

/// The directives of `Cache-Control` that matter here.
#[derive(Default)]
struct CacheControl {
    is_uncacheable: bool,
    max_age: Option<Duration>,
    shared_max_age: Option<Duration>,
}

/// The freshness lifetime, if the headers have one.
pub(super) fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let directives = CacheControl::of(headers);
    if directives.is_uncacheable {
        return Some(Duration::ZERO);
    }
    let fresh_for = directives
        .shared_max_age
        .or(directives.max_age)
        .or_else(|| until_expires(headers))?;
    let age = text(headers, header::AGE).and_then(|age| age.trim().parse().ok());
    Some(fresh_for.saturating_sub(Duration::from_secs(age.unwrap_or(0))))
}

impl CacheControl {
    fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        let fields = headers.get_all(header::CACHE_CONTROL).iter();
        for directive in fields
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
        {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let slot = match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" | "private" => {
                    directives.is_uncacheable = true;
                    continue;
                }
                "max-age" => &mut directives.max_age,
                "s-maxage" => &mut directives.shared_max_age,
                _ => continue,
            };
            // The smaller of two counts, and one that is no number makes the response stale
            // (section 4.2.1).
            let seconds = value.trim().trim_matches('"').parse().unwrap_or(0);
            let given = Duration::from_secs(seconds);
            *slot = Some(slot.map_or(given, |former| former.min(given)));
        }
        directives
    }
}

/// The time from `Date` to `Expires`. An `Expires` that is no date is in the past (section 5.3).
fn until_expires(headers: &HeaderMap) -> Option<Duration> {
    let expires = text(headers, header::EXPIRES)?;
    let Ok(expires) = httpdate::parse_http_date(expires) else {
        return Some(Duration::ZERO);
    };
    let date = httpdate::parse_http_date(text(headers, header::DATE)?).ok()?;
    Some(expires.duration_since(date).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
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
    fn shared_max_age_counts_before_max_age() {
        assert_eq!(fresh_for(&[("cache-control", "max-age=60, s-maxage=5")]), Some(5));
        assert_eq!(fresh_for(&[("cache-control", "s-maxage=600, max-age=60")]), Some(600));
        assert_eq!(fresh_for(&[("cache-control", "s-maxage=600, private")]), Some(0));
    }

    #[test]
    fn expires_counts_from_date_unless_there_is_a_max_age() {
        let (date, expires) = ("Sat, 28 Nov 2026 08:00:00 GMT", "Sat, 28 Nov 2026 09:00:00 GMT");
        assert_eq!(fresh_for(&[("date", date), ("expires", expires)]), Some(3600));
        assert_eq!(
            fresh_for(&[("date", date), ("expires", expires), ("age", "600")]),
            Some(3000)
        );
        assert_eq!(fresh_for(&[("date", expires), ("expires", date)]), Some(0));
        assert_eq!(fresh_for(&[("date", date), ("expires", "0")]), Some(0));
        assert_eq!(
            fresh_for(&[("expires", expires)]),
            None,
            "it counts from an unknown time"
        );
        let both = [("date", date), ("expires", expires), ("cache-control", "max-age=60")];
        assert_eq!(fresh_for(&both), Some(60));
    }

    #[test]
    fn response_without_any_of_them_has_no_lifetime() {
        assert_eq!(fresh_for(&[]), None);
        assert_eq!(fresh_for(&[("cache-control", "public")]), None);
        assert_eq!(fresh_for(&[("date", "Sat, 28 Nov 2026 08:00:00 GMT")]), None);
    }
}
