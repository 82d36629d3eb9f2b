//! The members of one JSON object, to read, remove and replace some and keep the others.
//!
//! Each value stays as its text, so number formats and the insides of other members pass byte for
//! byte.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::json;

/// Up to this number, comparing all pairs of names is cheaper than hashing each.
const FEW_MEMBERS: usize = 16;

/// The members of an object, in their order. No name comes twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Object<'t>(Vec<(Cow<'t, str>, Cow<'t, str>)>);

impl<'t> Object<'t> {
    /// Parses an object; `None` if the text is none, or has a name twice.
    pub(crate) fn parse(text: &'t str) -> Option<Self> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let object = reader.deserialize_map(Members).ok()?;
        reader.end().is_ok().then_some(object)
    }

    /// The text of a member.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| &**value)
    }

    /// True if a reader that ignores case could take another member for one of these.
    pub(crate) fn is_ambiguous(&self, names: &[&str]) -> bool {
        let mut members = self.0.iter();
        members.any(|(name, _)| {
            names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name) && known != name)
        })
    }

    fn has_name_twice(&self) -> bool {
        let names = || self.0.iter().map(|(name, _)| &**name);
        if self.0.len() <= FEW_MEMBERS {
            return names()
                .enumerate()
                .any(|(at, name)| names().take(at).any(|earlier| earlier == name));
        }
        // Clients choose the number of members, so the names are not compared in pairs.
        let mut seen = HashSet::with_capacity(self.0.len());
        !names().all(|name| seen.insert(name))
    }

    /// The names and texts of the members.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a member to a JSON text, in its place or at the end.
    pub(crate) fn set(&mut self, name: &'t str, value: impl Into<Cow<'t, str>>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, before)) => *before = value,
            None => self.0.push((name.into(), value)),
        }
    }

    /// Removes a member and returns its text.
    pub(crate) fn take(&mut self, name: &str) -> Option<Cow<'t, str>> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// Keeps the members whose names match.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }
}

/// The elements of an array, as their texts; `None` if the text is no array.
pub(crate) fn elements(text: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}:{value}", json::quote(name))?;
        }
        f.write_str("}")
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<BorrowedName<'de>>()? {
            object.0.push((name.0, map.next_value::<&'de RawValue>()?.get().into()));
        }
        if object.has_name_twice() {
            return Err(A::Error::custom("a member comes twice"));
        }
        Ok(object)
    }
}

/// A name, which is borrowed unless it is written with escapes.
#[derive(serde::Deserialize)]
struct BorrowedName<'t>(#[serde(borrow)] Cow<'t, str>);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[test]
    fn other_members_pass_byte_for_byte() {
        let text = r#"{"b":1.50,"a\u0062":{"x": [1e3]},"":"\u00e9"}"#;
        let mut object = Object::parse(text).expect("an object");
        assert_eq!(object.to_string(), r#"{"b":1.50,"ab":{"x": [1e3]},"":"\u00e9"}"#);
        assert_eq!(object.get("ab"), Some(r#"{"x": [1e3]}"#));
        object.set("b", "2");
        object.set("new", "null");
        assert_eq!(object.take("ab").as_deref(), Some(r#"{"x": [1e3]}"#));
        assert_eq!(object.take("ab"), None);
        assert_eq!(object.to_string(), r#"{"b":2,"":"\u00e9","new":null}"#);
        object.retain(|name| name == "new");
        assert_eq!(object.iter().collect::<Vec<_>>(), [("new", "null")]);
        assert!(!object.is_empty());
    }

    #[test]
    fn other_texts_are_no_objects() {
        for text in ["", "1", "[]", r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, "{} {}", "{"] {
            assert_eq!(Object::parse(text), None, "{text}");
        }
    }

    #[test]
    fn time_grows_with_the_size_of_an_object_and_not_with_its_square() {
        // The size of the largest request that a client may send.
        let members: Vec<_> = (0..300_000).map(|n| format!(r#""{n:06}":0"#)).collect();
        let text = format!("{{{}}}", members.join(","));
        let begun = Instant::now();
        assert!(Object::parse(&text).is_some());
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }

    #[test]
    fn elements_keep_their_texts() {
        assert_eq!(elements(r#"[1.0, {"a" : 1}]"#), Some(vec!["1.0", r#"{"a" : 1}"#]));
        assert_eq!(elements("{}"), None);
    }
}
