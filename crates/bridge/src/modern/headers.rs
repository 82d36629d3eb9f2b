//! The headers that mirror a request (MCP 2026-07-28, transports, "Request Metadata").
//!
//! An intermediary may act on them, so a request is rejected if they differ from its body.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue};

use super::ModernError;

const ENCODED_PREFIX: &str = "=?base64?";
const ENCODED_SUFFIX: &str = "?=";

/// The only value of a header, without white space around it.
///
/// # Errors
///
/// A [`ModernError`] if the header comes twice, or is not ASCII.
pub(crate) fn single<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ModernError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (text(value), values.next()) {
        (Some(value), None) => Ok(Some(value)),
        _ => Err(ModernError::header(format!("the header {name} is invalid"))),
    }
}

/// Checks that a header is there and has this value.
///
/// # Errors
///
/// A [`ModernError`] otherwise.
pub(crate) fn require(headers: &HeaderMap, name: &str, expected: &str) -> Result<(), ModernError> {
    match single(headers, name)? {
        Some(value) if value == expected => Ok(()),
        Some(_) => Err(ModernError::header(format!("the header {name} differs from the body"))),
        None => Err(ModernError::header(format!("the header {name} is missing"))),
    }
}

/// As [`require`], for a value that may be encoded.
///
/// # Errors
///
/// A [`ModernError`] otherwise.
pub(crate) fn require_encoded(headers: &HeaderMap, name: &str, expected: &str) -> Result<(), ModernError> {
    match encoded(headers, name)? {
        Some(value) if value == expected => Ok(()),
        Some(_) => Err(ModernError::header(format!("the header {name} differs from the body"))),
        None => Err(ModernError::header(format!("the header {name} is missing"))),
    }
}

/// The only value of a header that may be encoded.
///
/// # Errors
///
/// A [`ModernError`] if the header comes twice or cannot be decoded.
pub(crate) fn encoded(headers: &HeaderMap, name: &str) -> Result<Option<String>, ModernError> {
    let Some(value) = single(headers, name)? else {
        return Ok(None);
    };
    let inner = value
        .strip_prefix(ENCODED_PREFIX)
        .and_then(|rest| rest.strip_suffix(ENCODED_SUFFIX));
    let Some(inner) = inner else {
        return Ok(Some(value.to_owned()));
    };
    let decoded = STANDARD.decode(inner).ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let invalid = || ModernError::header(format!("the header {name} is not valid Base64"));
    decoded.map(Some).ok_or_else(invalid)
}

fn text(value: &HeaderValue) -> Option<&str> {
    // Visible characters, spaces and tabs only.
    value.to_str().ok().map(|text| text.trim_matches([' ', '\t']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("mcp-name", HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        headers
    }

    #[test]
    fn values_are_compared_without_white_space_and_with_case() {
        assert!(require(&headers(&["  a b\t"]), "mcp-name", "a b").is_ok());
        for wrong in [&["A"][..], &[], &["a", "a"], &[""], &["\u{e9}"]] {
            assert!(require(&headers(wrong), "mcp-name", "a").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn encoded_values_are_decoded() {
        for (value, decoded) in [
            ("=?base64?w6k=?=", Some("\u{e9}")),
            ("=?base64??=", Some("")),
            ("=?base64?w6k?=", None),
            ("=?base64?w6-_?=", None),
            ("=?base64?/w==?=", None),
            ("=?base64?w6k=", Some("=?base64?w6k=")),
            ("w6k=?=", Some("w6k=?=")),
            ("=?BASE64?w6k=?=", Some("=?BASE64?w6k=?=")),
        ] {
            let read = encoded(&headers(&[value]), "mcp-name");
            assert_eq!(read.ok().flatten().as_deref(), decoded, "{value}");
        }
    }
}
