//! What the client has asked of its server that outlasts the asking: a log level, and subscriptions to resources.
//!
//! A wish counts once the server has granted it. The record is bounded; a wish beyond that is granted all the same, but not repeated
//! to the next server.

use std::collections::BTreeSet;

use crate::{envelope::Envelope, json};

/// The longest URI that is recorded, in bytes.
const MAX_URI: usize = 4096;
/// The most bytes of URIs that are recorded.
const MAX_URIS: usize = 256 * 1024;

/// What a request means for the record, if it succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// This is the least level that is logged (JSON text).
    Level(Box<str>),
    /// Tell of changes of this resource.
    Subscribe(Box<str>),
    /// Do not tell of them any more.
    Unsubscribe(Box<str>),
}

/// The wishes that hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    /// The level that was set last (JSON text).
    pub(crate) level: Option<Box<str>>,
    /// The URIs that are subscribed to.
    pub(crate) subscriptions: BTreeSet<Box<str>>,
}

impl Wish {
    /// The wish that a request is, if it is one.
    pub(crate) fn of(method: &str, message: &Envelope) -> Option<Self> {
        let uri = || message.param("uri").and_then(json::string).map(Box::from);
        match method {
            "logging/setLevel" => {
                let level = message.param("level").filter(|level| level.len() <= MAX_URI)?;
                json::string(level).map(|_| Self::Level(level.into()))
            }
            "resources/subscribe" => uri().map(Self::Subscribe),
            "resources/unsubscribe" => uri().map(Self::Unsubscribe),
            _other => None,
        }
    }

    /// The request that makes this wish under another id.
    pub(crate) fn request(&self, id: &str) -> String {
        let (method, name, value) = match self {
            Self::Level(level) => ("logging/setLevel", "level", level.to_string()),
            Self::Subscribe(uri) => ("resources/subscribe", "uri", json::quote(uri)),
            Self::Unsubscribe(uri) => ("resources/unsubscribe", "uri", json::quote(uri)),
        };
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{"{name}":{value}}}}}"#)
    }
}

impl Wishes {
    /// A wish has been granted. `false` if there is no room for it.
    pub(crate) fn grant(&mut self, wish: Wish, max_subscriptions: usize) -> bool {
        match wish {
            Wish::Level(level) => self.level = Some(level),
            Wish::Subscribe(uri) => {
                let bytes: usize = self.subscriptions.iter().map(|uri| uri.len()).sum();
                let room = self.subscriptions.len() < max_subscriptions
                    && uri.len() <= MAX_URI
                    && bytes + uri.len() <= MAX_URIS;
                if !room && !self.subscriptions.contains(&uri) {
                    return false;
                }
                self.subscriptions.insert(uri);
            }
            Wish::Unsubscribe(uri) => {
                self.subscriptions.remove(&uri);
            }
        }
        true
    }

    /// Each of them, to be made anew.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Wish> {
        let level = self.level.iter().cloned().map(Wish::Level);
        level.chain(self.subscriptions.iter().cloned().map(Wish::Subscribe))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(method: &str, params: &str) -> Option<Wish> {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        Wish::of(method, &Envelope::parse(text.as_bytes()).expect("a message"))
    }

    #[test]
    fn wishes_are_read_and_made_anew() {
        for (method, params) in [
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("resources/subscribe", r#"{"uri":"a:\u0062\""}"#),
            ("resources/unsubscribe", r#"{"uri":"a:b"}"#),
        ] {
            let made = wish(method, params).expect("a wish");
            let again = Envelope::parse(made.request("\"x\"").as_bytes()).expect("a message");
            assert_eq!(Wish::of(method, &again), Some(made));
        }
        assert_eq!(wish("tools/call", r#"{"uri":"a:b"}"#), None);
        assert_eq!(wish("resources/subscribe", r#"{"uri":7}"#), None);
        assert_eq!(wish("logging/setLevel", r#"{"level":{"a":1}}"#), None);
    }

    #[test]
    fn the_last_level_and_the_live_subscriptions_hold() {
        let mut wishes = Wishes::default();
        for (method, params) in [
            ("logging/setLevel", r#"{"level":"debug"}"#),
            ("logging/setLevel", r#"{"level":"error"}"#),
            ("resources/subscribe", r#"{"uri":"a:1"}"#),
            ("resources/subscribe", r#"{"uri":"a:2"}"#),
            ("resources/subscribe", r#"{"uri":"a:\u0032"}"#),
            ("resources/unsubscribe", r#"{"uri":"a:1"}"#),
        ] {
            assert!(wishes.grant(wish(method, params).expect("a wish"), 2));
        }
        assert_eq!(
            wishes.iter().collect::<Vec<_>>(),
            [Wish::Level("\"error\"".into()), Wish::Subscribe("a:2".into())]
        );
    }

    #[test]
    fn the_record_is_bounded() {
        let mut wishes = Wishes::default();
        assert!(wishes.grant(Wish::Subscribe("a:1".into()), 1));
        assert!(!wishes.grant(Wish::Subscribe("a:2".into()), 1));
        assert!(wishes.grant(Wish::Subscribe("a:1".into()), 1));
        assert!(!wishes.grant(Wish::Subscribe("x".repeat(MAX_URI + 1).into()), 9));
        let mut wishes = Wishes::default();
        let long = |number: usize| Wish::Subscribe(format!("{number:0>MAX_URI$}").into());
        assert!((0..MAX_URIS / MAX_URI).all(|number| wishes.grant(long(number), 1024)));
        assert!(!wishes.grant(Wish::Subscribe("a:1".into()), 1024));
        assert!(wishes.grant(long(0), 1024), "it is there already");
    }
}
