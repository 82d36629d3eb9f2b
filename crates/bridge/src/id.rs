//! Request ids and progress tokens: strings or numbers (MCP 2025-11-25, `RequestId` and `ProgressToken`).
//!
//! An id keeps the text in which it came, to be given back byte for byte, and a key by which it is compared: two spellings
//! of one string or of one whole number (`1` and `1.0`) are one id, as they are to most readers of JSON.

/// The longest id that is taken, in bytes of its text. Ids are kept for every request in flight, so they have a limit.
const MAX_BYTES: usize = 512;

/// An id as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    raw: Box<str>,
    key: Key,
}

/// What an id is compared by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(Box<str>);

impl Id {
    /// The id that a JSON value is, if it is a string or a number of sensible length.
    pub(crate) fn parse(raw: &str) -> Option<Self> {
        if raw.len() > MAX_BYTES {
            return None;
        }
        let key = match raw.as_bytes().first()? {
            // A string with a lone surrogate has no unescaped form; it is compared as it is written.
            b'"' => crate::json::string(raw).map_or_else(|| format!("r{raw}"), |text| format!("s{text}")),
            b'-' | b'0'..=b'9' => format!(
                "n{}",
                whole(raw).map_or_else(|| raw.to_owned(), |whole| whole.to_string())
            ),
            _ => return None,
        };
        Some(Self {
            raw: raw.into(),
            key: Key(key.into()),
        })
    }

    /// The JSON text of the id.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    /// What the id is compared by.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The id as one that a bridge has given out, which are whole numbers.
    pub(crate) fn number(&self) -> Option<u64> {
        self.key.0.strip_prefix('n')?.parse().ok()
    }
}

/// The whole number that is written with a fraction or an exponent, as far as every reader of JSON agrees on it.
fn whole(raw: &str) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value: f64 = raw.contains(['.', 'e', 'E']).then(|| raw.parse().ok())??;
    // Within this range the conversion loses nothing.
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
    fn nothing_else_is_an_id() {
        for raw in ["null", "true", "{}", "[1]", ""] {
            assert_eq!(Id::parse(raw), None, "{raw}");
        }
        assert_eq!(Id::parse(&format!("\"{}\"", "x".repeat(MAX_BYTES))), None);
    }

    #[test]
    fn spellings_of_one_value_are_one_key_and_a_number_is_never_a_string() {
        let key = |raw| Id::parse(raw).map(|id| id.key().clone());
        assert_eq!(key("\"a\""), key("\"\\u0061\""));
        assert_ne!(key("1"), key("\"1\""));
        assert_eq!(key("1"), key("1.0"));
        assert_eq!(key("1000"), key("1e3"));
        assert_ne!(key("1"), key("1.5"));
        assert_ne!(key("12345678901234567890"), key("12345678901234567891"));
    }
}
