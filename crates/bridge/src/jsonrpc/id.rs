//! Request ids and progress tokens: strings or numbers (MCP 2025-11-25, `RequestId` and
//! `ProgressToken`).
//!
//! An id keeps its original text, to be returned byte for byte, and a key for comparison. Two
//! spellings of one string or of one whole number (`1` and `1.0`) are one id, as most JSON readers
//! treat them.

use super::json;

/// The longest accepted id, in bytes of its text. The bridge keeps ids of all requests in flight.
const MAX_ID_BYTES: usize = 512;

/// An id with its original text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    raw: Box<str>,
    key: RequestKey,
}

/// The normalized form by which ids are compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestKey(Box<str>);

impl Id {
    /// Reads an id; `None` unless `raw` is a JSON string or number within the length limit.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        if raw.len() > MAX_ID_BYTES {
            return None;
        }
        let key = match raw.as_bytes().first()? {
            // A string with a lone surrogate has no decoded form and is compared by its text.
            b'"' => json::string(raw).map_or_else(|| format!("r{raw}"), |text| format!("s{text}")),
            b'-' | b'0'..=b'9' => format!(
                "n{}",
                integer(raw).map_or_else(|| raw.to_owned(), |integer| integer.to_string())
            ),
            _ => return None,
        };
        Some(Self {
            raw: raw.into(),
            key: RequestKey(key.into()),
        })
    }

    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    pub(crate) fn key(&self) -> &RequestKey {
        &self.key
    }

    /// The id as a number that a conversation may have assigned.
    pub(crate) fn number(&self) -> Option<u64> {
        self.key.0.strip_prefix('n')?.parse().ok()
    }

    /// The text of an id that is a string.
    pub(crate) fn text(&self) -> Option<&str> {
        self.key.0.strip_prefix('s')
    }
}

/// The integer that is written with a fraction or an exponent, if all JSON readers agree on it.
fn integer(raw: &str) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value: f64 = raw.contains(['.', 'e', 'E']).then(|| raw.parse().ok())??;
    // The conversion is exact within this range.
    (value.fract() == 0.0 && value.abs() < EXACT).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_numbers_are_ids() {
        for raw in [
            "0",
            "-1",
            "1.5",
            "1e3",
            "\"\"",
            "\"a\"",
            "\"\\ud800\"",
            "12345678901234567890123",
        ] {
            assert_eq!(Id::parse(raw).map(|id| id.raw().to_owned()).as_deref(), Some(raw));
        }
    }

    #[test]
    fn other_values_are_not_ids() {
        for raw in ["null", "true", "{}", "[1]", ""] {
            assert_eq!(Id::parse(raw), None, "{raw}");
        }
        assert_eq!(Id::parse(&format!("\"{}\"", "x".repeat(MAX_ID_BYTES))), None);
    }

    #[test]
    fn spellings_of_one_value_share_a_key_and_numbers_differ_from_strings() {
        let key = |raw| Id::parse(raw).map(|id| id.key().clone());
        assert_eq!(key("\"a\""), key("\"\\u0061\""));
        assert_ne!(key("1"), key("\"1\""));
        assert_eq!(key("1"), key("1.0"));
        assert_eq!(key("1000"), key("1e3"));
        assert_ne!(key("1"), key("1.5"));
        assert_ne!(key("12345678901234567890"), key("12345678901234567891"));
    }
}
