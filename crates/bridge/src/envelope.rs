//! One JSON-RPC 2.0 message, read shallowly and rewritten by splicing.
//!
//! A message is read once: its kind, its id and its method. Where it is rewritten (an id exchanged, a version lowered), the
//! new text replaces the old in place and every other byte stays as it came: unknown members, number formats and the
//! order of members survive. The text never holds a raw line break, so that a message is always one line: between the
//! tokens of JSON a line break is white space, and within a string it is not allowed (RFC 8259 sections 2 and 7).
//! Batches are refused.

use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;

use crate::{
    id::Id,
    json::{self, Flaw},
};

/// A message and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    text: String,
    kind: Kind,
    id_at: Option<Range<usize>>,
    params_at: Option<Range<usize>>,
    outcome_at: Option<Range<usize>>,
}

/// The three kinds of message (JSON-RPC 2.0 sections 4 and 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Wants an answer.
    Request {
        /// The id that its answer carries.
        id: Id,
        /// What is asked for.
        method: Box<str>,
    },
    /// Wants none.
    Notification {
        /// What is told.
        method: Box<str>,
    },
    /// Is one.
    Response {
        /// The id of the request; `None` for `null`, which answers a request that could not be read.
        id: Option<Id>,
        /// Whether it carries an error rather than a result.
        error: bool,
    },
}

/// Why a text is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// It is not UTF-8.
    NotUtf8,
    /// It is not JSON.
    NotJson,
    /// It is a JSON array: a batch, which MCP has dropped since 2025-06-18.
    Batch,
    /// It is JSON, but no JSON-RPC 2.0 message. The id is there if it could be made out.
    NotJsonRpc(Option<Id>),
}

impl Envelope {
    /// Reads one message.
    ///
    /// # Errors
    ///
    /// Each variant of [`Malformed`].
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
        let names = ["jsonrpc", "id", "method", "params", "result", "error"];
        let [version, id_at, method_at, params_at, result_at, error_at] =
            json::members(text, names).map_err(|flaw| match flaw {
                Flaw::Syntax => Malformed::NotJson,
                Flaw::Shape => not_an_object(text),
            })?;
        let part = |at: &Option<Range<usize>>| at.clone().map(|at| &text[at]);

        let id = part(&id_at).and_then(Id::parse);
        let foreign = || Malformed::NotJsonRpc(id.clone());
        if part(&version).and_then(json::string).as_deref() != Some("2.0") {
            return Err(foreign());
        }
        // Some servers write `"error": null` beside a result.
        let error_at = error_at.filter(|at| &text[at.clone()] != "null");
        let kind = match (part(&method_at), part(&id_at)) {
            (Some(method), raw_id) => {
                let method = json::string(method).ok_or_else(foreign)?.into();
                match (raw_id, &id) {
                    (None, _) => Kind::Notification { method },
                    (Some(_), Some(id)) => Kind::Request { id: id.clone(), method },
                    (Some(_), None) => return Err(foreign()),
                }
            }
            (None, Some(raw_id)) => {
                let told_once = result_at.is_some() != error_at.is_some();
                if !told_once || (id.is_none() && raw_id != "null") {
                    return Err(foreign());
                }
                Kind::Response {
                    id: id.clone(),
                    error: error_at.is_some(),
                }
            }
            (None, None) => return Err(foreign()),
        };

        // Read first, flattened after: a line break within a string has been refused by then.
        let text = text.replace(['\n', '\r'], " ");
        Ok(Self {
            text,
            kind,
            id_at,
            params_at,
            outcome_at: error_at.or(result_at),
        })
    }

    /// What kind of message it is.
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The `params`, if there are any.
    pub(crate) fn params(&self) -> Option<&str> {
        Some(&self.text[self.params_at.clone()?])
    }

    /// The `result` or the `error` of a response.
    pub(crate) fn outcome(&self) -> &str {
        self.outcome_at.clone().map_or("null", |at| &self.text[at])
    }

    /// A member of the `params`; `None` also when the `params` are no object or are ambiguous.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        let params = self.params()?;
        Some(&params[json::member(params, name)?])
    }

    /// The message as it came, on one line.
    pub(crate) fn into_line(self) -> Bytes {
        self.text.into()
    }

    /// The message with another id, on one line.
    pub(crate) fn with_id(&self, id: &str) -> Bytes {
        match &self.id_at {
            Some(at) => self.splice(at, id).into(),
            None => self.text.clone().into(),
        }
    }

    /// Exchanges a member of the `params`, which has to be there. What was known of the message stays true.
    pub(crate) fn set_param(&mut self, name: &str, value: &str) {
        let Some(params) = self.params_at.clone() else {
            return;
        };
        let Some(member) = json::member(&self.text[params.clone()], name) else {
            return;
        };
        let at = params.start + member.start..params.start + member.end;
        let text = self.splice(&at, value);
        // Whatever lies behind the member, or ends with or behind it, moves by the difference in length.
        let shift = |place: usize| {
            if place >= at.end {
                place - at.len() + value.len()
            } else {
                place
            }
        };
        for range in [&mut self.id_at, &mut self.params_at, &mut self.outcome_at]
            .into_iter()
            .flatten()
        {
            *range = shift(range.start)..shift(range.end);
        }
        self.text = text;
    }

    fn splice(&self, at: &Range<usize>, value: &str) -> String {
        [&self.text[..at.start], value, &self.text[at.end..]].concat()
    }
}

fn not_an_object(text: &str) -> Malformed {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Malformed::NotJson;
    }
    if text.trim_start().starts_with('[') {
        Malformed::Batch
    } else {
        Malformed::NotJsonRpc(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Envelope {
        Envelope::parse(text.as_bytes()).expect("a message")
    }

    fn id(raw: &str) -> Id {
        Id::parse(raw).expect("an id")
    }

    #[test]
    fn tells_the_kinds_apart() {
        let request = read(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{}}"#);
        assert_eq!(
            *request.kind(),
            Kind::Request {
                id: id("\"a\""),
                method: "tools/call".into()
            }
        );
        let notification = read(r#"{"method":"notifications/x","jsonrpc":"2.0"}"#);
        assert_eq!(
            *notification.kind(),
            Kind::Notification {
                method: "notifications/x".into()
            }
        );
        let answer = read(r#"{"jsonrpc":"2.0","id":0,"result":null}"#);
        assert_eq!(
            *answer.kind(),
            Kind::Response {
                id: Some(id("0")),
                error: false
            }
        );
        let error = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#);
        assert_eq!(*error.kind(), Kind::Response { id: None, error: true });
        let both = read(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#);
        assert_eq!(
            *both.kind(),
            Kind::Response {
                id: Some(id("1")),
                error: false
            }
        );
        assert_eq!(both.outcome(), "{}");
    }

    #[test]
    fn refuses_what_is_no_message() {
        let refused = |text: &str| Envelope::parse(text.as_bytes()).expect_err("no message");
        assert_eq!(refused(""), Malformed::NotJson);
        assert_eq!(refused("{\"jsonrpc\":"), Malformed::NotJson);
        assert_eq!(refused("[{]"), Malformed::NotJson);
        assert_eq!(refused(" [{\"jsonrpc\":\"2.0\"}]"), Malformed::Batch);
        assert_eq!(refused("3"), Malformed::NotJsonRpc(None));
        assert_eq!(
            refused(r#"{"id":4,"method":"x"}"#),
            Malformed::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"1.0","id":4,"method":"x"}"#),
            Malformed::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":4,"method":5}"#),
            Malformed::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#),
            Malformed::NotJsonRpc(None)
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#),
            Malformed::NotJsonRpc(None)
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":4}"#),
            Malformed::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":4,"result":1,"error":{}}"#),
            Malformed::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(refused(r#"{"jsonrpc":"2.0"}"#), Malformed::NotJsonRpc(None));
        assert_eq!(
            refused(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#),
            Malformed::NotJsonRpc(None)
        );
        assert_eq!(
            Envelope::parse(b"{\"\xff\":1}").expect_err("no message"),
            Malformed::NotUtf8
        );
    }

    #[test]
    fn exchanges_the_id_and_nothing_else() {
        let text = r#"{ "x":1.00, "id" : "\u0061" ,"jsonrpc":"2.0","method":"m","params":{"id":"a","n":1e2}}"#;
        let expected = r#"{ "x":1.00, "id" : 17 ,"jsonrpc":"2.0","method":"m","params":{"id":"a","n":1e2}}"#;
        assert_eq!(read(text).with_id("17"), expected);
    }

    #[test]
    fn a_pretty_printed_message_becomes_one_line() {
        let line = read("{\r\n  \"jsonrpc\": \"2.0\",\n  \"method\": \"a\\nb\"\n}\n").into_line();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        assert_eq!(
            read(std::str::from_utf8(&line).expect("text")).kind(),
            &Kind::Notification { method: "a\nb".into() }
        );
    }

    #[test]
    fn a_line_break_within_a_string_is_not_json() {
        assert_eq!(
            Envelope::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"a\nb\"}").expect_err("no message"),
            Malformed::NotJson
        );
    }

    #[test]
    fn exchanges_a_parameter_and_stays_consistent() {
        let mut message = read(r#"{"params":{"a":"old","b":2},"id":5,"jsonrpc":"2.0","method":"m"}"#);
        message.set_param("a", "\"much newer\"");
        assert_eq!(message.params(), Some(r#"{"a":"much newer","b":2}"#));
        assert_eq!(message.param("b"), Some("2"));
        assert_eq!(
            message.with_id("6"),
            r#"{"params":{"a":"much newer","b":2},"id":6,"jsonrpc":"2.0","method":"m"}"#
        );
        message.set_param("missing", "1");
        assert_eq!(message.param("missing"), None);
    }

    /// Pieces of messages, which make a message now and then.
    fn soup() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            " ",
            "\n",
            "\r",
            "\"jsonrpc\":\"2.0\"",
            "\"id\":",
            "\"method\":\"m\"",
            "\"params\":{\"a\":1}",
            "\"params\":",
            "\"result\":",
            "\"error\":",
            "null",
            "1",
            "-0.5e1",
            "\"\\u00e9\"",
            "\"a\":",
            "\"é\"",
            "\\",
            "\"",
        ]);
        let free = prop::collection::vec(pieces.clone(), 0..30).prop_map(|pieces| pieces.concat());
        let member = prop::collection::vec(pieces, 1..3).prop_map(|pieces| pieces.concat());
        let object = prop::collection::vec(member, 0..6).prop_map(|members| {
            format!(
                "{{\"jsonrpc\":\"2.0\",\r\n\"id\":7,{}\"method\":\"m\"}}",
                members.iter().map(|m| format!("{m},")).collect::<String>()
            )
        });
        prop_oneof![free, object]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_read_can_be_rewritten(text in soup(), value in "[1-9][0-9]{0,3}") {
            let Ok(mut message) = Envelope::parse(text.as_bytes()) else { return Ok(()) };
            let flat = text.replace(['\n', '\r'], " ");
            prop_assert_eq!(&message.clone().into_line(), flat.as_bytes());
            if let Kind::Request { id, .. } = message.kind().clone() {
                prop_assert_eq!(message.with_id(id.raw()), flat.as_bytes());
                let other = Envelope::parse(&message.with_id(&value)).expect("still a message");
                prop_assert_eq!(other.params(), message.params());
            }
            message.set_param("a", &value);
            let read = Envelope::parse(&message.clone().into_line()).expect("still a message");
            prop_assert_eq!(read.kind(), message.kind());
            prop_assert_eq!(read.params(), message.params());
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Envelope::parse(&bytes).is_err() || std::str::from_utf8(&bytes).is_ok());
        }
    }
}
