//! Finds the members of one JSON object without parsing deeper.
//!
//! Each member is a range of the original text, so that everything else passes byte for byte. The
//! whole text is checked for syntax on the way. Objects that readers could interpret differently
//! are rejected: a wanted name that comes twice, or a name that differs from a wanted one only in
//! case, because some decoders ignore case.

use std::{fmt, ops::Range};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::{error::Category, value::RawValue};

/// Why the members of a text cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonError {
    /// The text is not JSON.
    Syntax,
    /// The text is JSON, but not an object with unambiguous members.
    Shape,
}

/// Finds the named members of the object `text`.
///
/// # Errors
///
/// [`JsonError::Syntax`] when `text` is not one JSON value, [`JsonError::Shape`] when it is not an
/// object or is ambiguous.
pub(crate) fn members<const N: usize>(text: &str, names: [&str; N]) -> Result<[Option<Range<usize>>; N], JsonError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let found = reader
        .deserialize_map(Object { text, names: &names })
        .and_then(|found| reader.end().map(|()| found));
    found.map_err(|error| match error.classify() {
        Category::Data => JsonError::Shape,
        Category::Io | Category::Syntax | Category::Eof => JsonError::Syntax,
    })
}

/// Finds one member of the object `text`; `None` if `text` is not an object, is ambiguous, or has
/// no such member.
pub(crate) fn member(text: &str, name: &str) -> Option<Range<usize>> {
    let [found] = members(text, [name]).ok()?;
    found
}

pub(crate) fn string(text: &str) -> Option<String> {
    text.starts_with('"').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Encodes `value` as a JSON string, with its quotes.
pub(crate) fn quote(value: &str) -> String {
    if is_plain(value) {
        return ["\"", value, "\""].concat();
    }
    serde_json::to_string(value).expect("every string has a JSON form")
}

/// True if a string is the same between the quotes of its JSON form.
fn is_plain(value: &str) -> bool {
    value.bytes().all(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'))
}

struct Object<'n, const N: usize> {
    text: &'n str,
    names: &'n [&'n str; N],
}

struct Name<'n, const N: usize>(&'n [&'n str; N]);

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = [Option<Range<usize>>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [const { None }; N];
        while let Some(name) = map.next_key_seed(Name(self.names))? {
            let Some(at) = name else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = map.next_value::<&RawValue>()?.get();
            // The value borrows from `text`, so the distance of the two is its offset.
            let start = value.as_ptr().addr() - self.text.as_ptr().addr();
            if found[at].replace(start..start + value.len()).is_some() {
                return Err(A::Error::custom("a member comes twice"));
            }
        }
        Ok(found)
    }
}

impl<'de, const N: usize> DeserializeSeed<'de> for Name<'_, N> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<const N: usize> Visitor<'_> for Name<'_, N> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        match self.0.iter().position(|known| known.eq_ignore_ascii_case(name)) {
            Some(at) if self.0[at] == name => Ok(Some(at)),
            Some(_) => Err(E::custom("a member name is ambiguous")),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'t, const N: usize>(text: &'t str, names: [&str; N]) -> Result<[Option<&'t str>; N], JsonError> {
        members(text, names).map(|found| found.map(|at| at.map(|at| &text[at])))
    }

    #[test]
    fn finds_members_in_any_order_and_keeps_their_text() {
        let text = "{ \"b\" : [1, {\"a\":2}] ,\n\"x\":\"y\", \"a\":1.50 }";
        assert_eq!(
            find(text, ["a", "b", "c"]),
            Ok([Some("1.50"), Some("[1, {\"a\":2}]"), None])
        );
    }

    #[test]
    fn a_null_member_is_found() {
        assert_eq!(find(r#"{"a":null}"#, ["a"]), Ok([Some("null")]));
    }

    #[test]
    fn an_escaped_name_is_the_same_name() {
        assert_eq!(find(r#"{"\u0061":3}"#, ["a"]), Ok([Some("3")]));
    }

    #[test]
    fn rejects_a_member_that_comes_twice_or_in_another_case() {
        assert_eq!(find(r#"{"id":1,"id":2}"#, ["id"]), Err(JsonError::Shape));
        assert_eq!(find(r#"{"id":1,"\u0069d":2}"#, ["id"]), Err(JsonError::Shape));
        assert_eq!(find(r#"{"id":1,"ID":2}"#, ["id"]), Err(JsonError::Shape));
    }

    #[test]
    fn invalid_json_is_distinct_from_json_that_is_not_an_object() {
        for broken in [
            "",
            " ",
            "{",
            "{\"a\":}",
            "{\"a\":1}}",
            "{\"a\":1} x",
            "{\"x\":\"\n\"}",
            "{\"x\":\"\\q\"}",
            "{'a':1}",
        ] {
            assert_eq!(find(broken, ["a"]), Err(JsonError::Syntax), "{broken:?}");
        }
        for other in ["1", "null", "\"a\"", "[1,2]"] {
            assert_eq!(find(other, ["a"]), Err(JsonError::Shape), "{other:?}");
        }
    }

    #[test]
    fn deep_nesting_is_skipped_without_recursion() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(find(&deep, ["a"]).is_ok());
        assert!(find(&deep, ["b"]).is_ok());
    }

    #[test]
    fn strings_are_quoted_and_decoded() {
        assert_eq!(quote("a\"b\n"), r#""a\"b\n""#);
        for plain in ["", "é/", "\u{7f}"] {
            assert_eq!(quote(plain), serde_json::Value::from(plain).to_string());
        }
        assert_eq!(string(r#""a\"b\n""#).as_deref(), Some("a\"b\n"));
        assert_eq!(string("12"), None);
    }
}
