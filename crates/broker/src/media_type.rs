//! Media types: what a client accepts, and what it sends.
//!
//! `Accept` follows RFC 9110 section 12.5.1: parameters, ranges, quality zero, and the more
//! specific range wins. A request without it accepts everything.

use http::{HeaderMap, header};

pub(crate) const JSON: MediaType = MediaType("application", "json");
const HTML: MediaType = MediaType("text", "html");
pub(crate) const EVENT_STREAM: MediaType = MediaType("text", "event-stream");

/// Returns true if `Accept` names HTML, as that of a browser does.
pub(crate) fn names_html(headers: &HeaderMap) -> bool {
    let is_html = |range: &str| {
        range
            .split(';')
            .next()
            .is_some_and(|range| HTML.matched_by(range.trim()) == Some(2))
    };
    HTML.is_acceptable(headers) && accepted_ranges(headers).any(is_html)
}

/// A media type in lower case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaType(&'static str, &'static str);

impl MediaType {
    /// Returns true if `Accept` allows a response of this type.
    pub(crate) fn is_acceptable(self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::ACCEPT) {
            return true;
        }
        // The most specific range that matches decides.
        let mut best: Option<(u8, bool)> = None;
        for range in accepted_ranges(headers) {
            let (media_range, parameters) = range.split_once(';').unwrap_or((range, ""));
            let Some(specificity) = self.matched_by(media_range.trim()) else {
                continue;
            };
            if best.is_none_or(|(before, _)| specificity > before) {
                best = Some((specificity, !has_quality_zero(parameters)));
            }
        }
        best.is_some_and(|(_, acceptable)| acceptable)
    }

    /// Returns true if `Content-Type` is this type, with any parameters.
    pub(crate) fn is_content_of(self, headers: &HeaderMap) -> bool {
        let mut values = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Ok(value) = value.to_str() else { return false };
        let media_type = value.split(';').next().unwrap_or_default();
        self.matched_by(media_type.trim()) == Some(2)
    }

    /// The specificity with which a range matches this type: 2 for the type itself, 1 for its first
    /// half, 0 for any.
    fn matched_by(self, range: &str) -> Option<u8> {
        match range.split_once('/')? {
            ("*", "*") => Some(0),
            (kind, "*") if kind.eq_ignore_ascii_case(self.0) => Some(1),
            (kind, sub) if kind.eq_ignore_ascii_case(self.0) && sub.eq_ignore_ascii_case(self.1) => Some(2),
            _ => None,
        }
    }
}

/// The ranges of `Accept`, over all its lines. Lines that are not text are skipped.
fn accepted_ranges(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::ACCEPT).into_iter();
    lines
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// Quality zero means "not acceptable" (RFC 9110 section 12.4.2).
fn has_quality_zero(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        let Some((name, value)) = parameter.split_once('=') else {
            return false;
        };
        name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0_f32)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

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
    fn ranges_parameters_and_case_are_parsed() {
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
    fn quality_zero_excludes_and_the_more_specific_range_wins() {
        assert_eq!(accepted(&["*/*, text/event-stream;q=0"]), (true, false));
        assert_eq!(accepted(&["text/event-stream;q=0.0, */*"]), (true, false));
        assert_eq!(accepted(&["application/*;q=0, application/json"]), (true, false));
        assert_eq!(accepted(&["*/*;q=0"]), (false, false));
    }

    #[test]
    fn content_type_is_json_with_any_parameters() {
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
