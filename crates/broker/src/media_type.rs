//! Media types: what a client accepts, and what it sends.
//!
//! `Accept` is read by RFC 9110 section 12.5.1: parameters, ranges, quality zero, the more specific range wins. A request
//! without it accepts anything.

use http::{HeaderMap, HeaderName, header};

/// What `/mcp` speaks.
pub(crate) const JSON: MediaType = MediaType("application", "json");
/// What `/mcp` streams.
pub(crate) const EVENT_STREAM: MediaType = MediaType("text", "event-stream");

/// A media type in lower case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaType(&'static str, &'static str);

impl MediaType {
    /// Whether `Accept` lets an answer be of this type.
    pub(crate) fn is_acceptable(self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::ACCEPT) {
            return true;
        }
        // The most specific range that matches decides.
        let mut best: Option<(u8, bool)> = None;
        for range in elements(headers, &header::ACCEPT) {
            let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
            let Some(specific) = self.matched_by(kind.trim()) else {
                continue;
            };
            let wanted = !is_refused(parameters);
            if best.is_none_or(|(before, _)| specific > before) {
                best = Some((specific, wanted));
            }
        }
        best.is_some_and(|(_, wanted)| wanted)
    }

    /// Whether `Content-Type` is this type, whatever its parameters.
    pub(crate) fn is_content_of(self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Ok(value) = value.to_str() else { return false };
        let kind = value.split(';').next().unwrap_or_default();
        self.matched_by(kind.trim()) == Some(2)
    }

    /// How specifically a range names this type: 2 as itself, 1 by its first half, 0 by any.
    fn matched_by(self, range: &str) -> Option<u8> {
        let (kind, sub) = range.split_once('/')?;
        match (kind, sub) {
            ("*", "*") => Some(0),
            (kind, "*") if kind.eq_ignore_ascii_case(self.0) => Some(1),
            (kind, sub) if kind.eq_ignore_ascii_case(self.0) && sub.eq_ignore_ascii_case(self.1) => Some(2),
            _ => None,
        }
    }
}

/// The comma-separated elements of a list field, over all its lines. A field that is not text has none.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter();
    lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// Quality zero says "not this" (RFC 9110 section 12.4.2).
fn is_refused(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0_f32)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        values
            .iter()
            .map(|value| (name.clone(), value.parse().unwrap()))
            .collect()
    }

    fn accepted(values: &[&str]) -> (bool, bool) {
        let headers = headers(&header::ACCEPT, values);
        (JSON.is_acceptable(&headers), EVENT_STREAM.is_acceptable(&headers))
    }

    #[test]
    fn ranges_parameters_and_case_are_understood() {
        for both in [
            &["application/json, text/event-stream"][..],
            &["text/event-stream;q=0.5,APPLICATION/JSON; charset=utf-8"],
            &["application/json", "text/event-stream"],
            &["*/*"],
            &["application/*, text/*;q=0.1"],
            &["text/html, */*;q=0.8"],
            &[],
        ] {
            assert_eq!(accepted(both), (true, true), "{both:?}");
        }
        assert_eq!(accepted(&["application/json"]), (true, false));
        assert_eq!(accepted(&["text/event-stream"]), (false, true));
        assert_eq!(accepted(&["text/html"]), (false, false));
        assert_eq!(accepted(&[""]), (false, false));
        assert_eq!(accepted(&["application/json-seq, text/event-streams"]), (false, false));
    }

    #[test]
    fn quality_zero_refuses_and_the_specific_range_wins() {
        assert_eq!(accepted(&["*/*, text/event-stream;q=0"]), (true, false));
        assert_eq!(accepted(&["text/event-stream;q=0.0, */*"]), (true, false));
        assert_eq!(accepted(&["application/*;q=0, application/json"]), (true, false));
        assert_eq!(accepted(&["*/*;q=0"]), (false, false));
    }

    #[test]
    fn content_is_json_whatever_its_parameters() {
        for json in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json ;x",
        ] {
            assert!(JSON.is_content_of(&headers(&header::CONTENT_TYPE, &[json])), "{json}");
        }
        for other in ["text/plain", "application/jsonx", "application/*", "*/*", "json", ""] {
            assert!(
                !JSON.is_content_of(&headers(&header::CONTENT_TYPE, &[other])),
                "{other}"
            );
        }
        assert!(!JSON.is_content_of(&HeaderMap::new()));
    }
}
