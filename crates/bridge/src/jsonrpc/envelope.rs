//! One JSON-RPC 2.0 message, read shallowly and rewritten by splicing.
//!
//! Parsing finds the kind, the id and the method. A rewrite (another id, a lower version) replaces
//! text in place, and every other byte stays: unknown members, number formats, member order. The
//! text never holds a raw line break, so that a message is always one line: between JSON tokens a
//! line break is white space, and within a string it is invalid (RFC 8259 sections 2 and 7).
//! Batches are rejected.

use std::ops::Range;

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{
    id::Id,
    json::{self, JsonError},
};

#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    text: String,
    kind: MessageKind,
    id_at: Option<Range<usize>>,
    params_at: Option<Range<usize>>,
    outcome_at: Option<Range<usize>>,
}

/// The three kinds of message (JSON-RPC 2.0 sections 4 and 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    Request {
        id: Id,
        method: Box<str>,
    },
    Notification {
        method: Box<str>,
    },
    Response {
        /// `None` for `null`, which answers a request that was unreadable.
        id: Option<Id>,
        error: bool,
    },
}

/// Why bytes are not one message. The texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    #[error("the body is not UTF-8")]
    NotUtf8,
    #[error("the body is not JSON")]
    NotJson,
    /// The text is a JSON array: a batch, which MCP dropped in 2025-06-18.
    #[error("batches are not supported in this protocol version: send one message at a time")]
    Batch,
    /// The text is JSON but not a JSON-RPC 2.0 message. Holds the id if it is readable.
    #[error("the body is not a JSON-RPC 2.0 message")]
    NotJsonRpc(Option<Id>),
}

impl Envelope {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(bytes).map_err(|_| MessageError::NotUtf8)?;
        let names = ["jsonrpc", "id", "method", "params", "result", "error"];
        let [version, id_at, method_at, params_at, result_at, error_at] =
            json::members(text, names).map_err(|error| match error {
                JsonError::Syntax => MessageError::NotJson,
                JsonError::Shape => not_an_object(text),
            })?;
        let part = |at: &Option<Range<usize>>| at.clone().map(|at| &text[at]);

        let id = part(&id_at).and_then(Id::parse);
        let invalid = || MessageError::NotJsonRpc(id.clone());
        if part(&version).and_then(json::string).as_deref() != Some("2.0") {
            return Err(invalid());
        }
        // Some servers write `"error": null` beside a result.
        let error_at = error_at.filter(|at| &text[at.clone()] != "null");
        let method = part(&method_at).map(|method| json::string(method).ok_or_else(invalid));
        let method = method.transpose()?.map(Box::from);
        let has_one_outcome = result_at.is_some() != error_at.is_some();
        let kind = match (method, part(&id_at), id.clone()) {
            (Some(method), None, _) => MessageKind::Notification { method },
            (Some(method), Some(_), Some(id)) => MessageKind::Request { id, method },
            (None, Some("null"), id) | (None, Some(_), id @ Some(_)) if has_one_outcome => MessageKind::Response {
                id,
                error: error_at.is_some(),
            },
            _ => return Err(invalid()),
        };

        // Parsing has rejected line breaks within strings by now.
        let is_one_line = !text.bytes().any(|byte| matches!(byte, b'\n' | b'\r'));
        let text = if is_one_line {
            text.to_owned()
        } else {
            text.replace(['\n', '\r'], " ")
        };
        Ok(Self {
            text,
            kind,
            id_at,
            params_at,
            outcome_at: error_at.or(result_at),
        })
    }

    /// A request with these parameters (JSON text on one line), and with 0 for its id.
    pub(crate) fn request(method: &str, params: &str) -> Self {
        let text = super::request(0, method, params);
        let id_at = r#"{"jsonrpc":"2.0","id":"#.len();
        let params_end = text.len() - "}".len();
        Self {
            kind: MessageKind::Request {
                id: Id::parse("0").expect("0 is an id"),
                method: method.into(),
            },
            id_at: Some(id_at..id_at + 1),
            params_at: Some(params_end - params.len()..params_end),
            outcome_at: None,
            text,
        }
    }

    pub(crate) fn kind(&self) -> &MessageKind {
        &self.kind
    }

    /// The method of a request or notification.
    pub(crate) fn method(&self) -> Option<&str> {
        match &self.kind {
            MessageKind::Request { method, .. } | MessageKind::Notification { method } => Some(method),
            MessageKind::Response { .. } => None,
        }
    }

    pub(crate) fn params(&self) -> Option<&str> {
        Some(&self.text[self.params_at.clone()?])
    }

    /// The `result` or the `error` of a response.
    pub(crate) fn outcome(&self) -> &str {
        self.outcome_at.clone().map_or("null", |at| &self.text[at])
    }

    /// A member of the `params`; `None` also when the `params` are ambiguous or not an object.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        let params = self.params()?;
        Some(&params[json::member(params, name)?])
    }

    pub(crate) fn param_id(&self, name: &str) -> Option<Id> {
        self.param(name).and_then(Id::parse)
    }

    /// The original message, on one line.
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

    /// The message with another id, which is its progress token, too, if it has one.
    pub(crate) fn with_id_and_token(&self, id: &str) -> Bytes {
        let (Some(id_at), Some(token_at)) = (&self.id_at, self.token_at()) else {
            return self.with_id(id);
        };
        let (first, second) = if id_at.start < token_at.start {
            (id_at, &token_at)
        } else {
            (&token_at, id_at)
        };
        let (head, between, tail) = (
            &self.text[..first.start],
            &self.text[first.end..second.start],
            &self.text[second.end..],
        );
        [head, id, between, id, tail].concat().into()
    }

    /// The progress token that a request offers (MCP 2025-11-25, "Progress").
    pub(crate) fn progress_token(&self) -> Option<Id> {
        Id::parse(&self.text[self.token_at()?])
    }

    /// The message with another value of a member of its `params`, on one line.
    pub(crate) fn with_param(&self, name: &str, value: &str) -> Bytes {
        let at = self.params_at.as_ref().and_then(|params| {
            let member = json::member(&self.text[params.clone()], name)?;
            Some(params.start + member.start..params.start + member.end)
        });
        match at {
            Some(at) => self.splice(&at, value).into(),
            None => self.text.clone().into(),
        }
    }

    /// Replaces a member of the `params`, if present, by a JSON value.
    pub(crate) fn set_param(&mut self, name: &str, value: &str) {
        let Some(params) = &self.params_at else { return };
        let Some(member) = json::member(&self.text[params.clone()], name) else {
            return;
        };
        let at = params.start + member.start..params.start + member.end;
        // The text is still a message: the other members stay.
        if let Ok(message) = Self::parse(self.splice(&at, value).as_bytes()) {
            *self = message;
        }
    }

    fn token_at(&self) -> Option<Range<usize>> {
        let params = self.params_at.clone()?;
        let meta = json::member(&self.text[params.clone()], "_meta")?;
        let meta = params.start + meta.start..params.start + meta.end;
        let token = json::member(&self.text[meta.clone()], "progressToken")?;
        Some(meta.start + token.start..meta.start + token.end)
    }

    fn splice(&self, at: &Range<usize>, value: &str) -> String {
        [&self.text[..at.start], value, &self.text[at.end..]].concat()
    }
}

fn not_an_object(text: &str) -> MessageError {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return MessageError::NotJson;
    }
    if text.trim_start().starts_with('[') {
        MessageError::Batch
    } else {
        MessageError::NotJsonRpc(None)
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
    fn requests_notifications_and_responses_are_distinguished() {
        let request = read(r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{}}"#);
        assert_eq!(
            *request.kind(),
            MessageKind::Request {
                id: id("\"a\""),
                method: "tools/call".into()
            }
        );
        let notification = read(r#"{"method":"notifications/x","jsonrpc":"2.0"}"#);
        assert_eq!(
            *notification.kind(),
            MessageKind::Notification {
                method: "notifications/x".into()
            }
        );
        let answer = read(r#"{"jsonrpc":"2.0","id":0,"result":null}"#);
        assert_eq!(
            *answer.kind(),
            MessageKind::Response {
                id: Some(id("0")),
                error: false
            }
        );
        let error = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#);
        assert_eq!(*error.kind(), MessageKind::Response { id: None, error: true });
        let both = read(r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#);
        assert_eq!(
            *both.kind(),
            MessageKind::Response {
                id: Some(id("1")),
                error: false
            }
        );
        assert_eq!(both.outcome(), "{}");
    }

    #[test]
    fn a_written_request_is_the_one_that_is_read() {
        let written = Envelope::request("a \"quoted\" method", r#"{"a":[1.0]}"#);
        let parsed = Envelope::parse(written.text.as_bytes()).expect("a message");
        assert_eq!(written.kind, parsed.kind);
        assert_eq!((written.id_at, written.params_at), (parsed.id_at, parsed.params_at));
    }

    #[test]
    fn rejects_invalid_messages() {
        let rejected = |text: &str| Envelope::parse(text.as_bytes()).expect_err("no message");
        assert_eq!(rejected(""), MessageError::NotJson);
        assert_eq!(rejected("{\"jsonrpc\":"), MessageError::NotJson);
        assert_eq!(rejected("[{]"), MessageError::NotJson);
        assert_eq!(rejected(" [{\"jsonrpc\":\"2.0\"}]"), MessageError::Batch);
        assert_eq!(rejected("3"), MessageError::NotJsonRpc(None));
        assert_eq!(
            rejected(r#"{"id":4,"method":"x"}"#),
            MessageError::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"1.0","id":4,"method":"x"}"#),
            MessageError::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":4,"method":5}"#),
            MessageError::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#),
            MessageError::NotJsonRpc(None)
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":{},"method":"x"}"#),
            MessageError::NotJsonRpc(None)
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":4}"#),
            MessageError::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":4,"result":1,"error":{}}"#),
            MessageError::NotJsonRpc(Some(id("4")))
        );
        assert_eq!(rejected(r#"{"jsonrpc":"2.0"}"#), MessageError::NotJsonRpc(None));
        assert_eq!(
            rejected(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"x"}"#),
            MessageError::NotJsonRpc(None)
        );
        assert_eq!(
            Envelope::parse(b"{\"\xff\":1}").expect_err("no message"),
            MessageError::NotUtf8
        );
    }

    #[test]
    fn with_id_replaces_only_the_id() {
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
            &MessageKind::Notification { method: "a\nb".into() }
        );
    }

    #[test]
    fn a_line_break_within_a_string_is_invalid() {
        assert_eq!(
            Envelope::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"a\nb\"}").expect_err("no message"),
            MessageError::NotJson
        );
    }

    #[test]
    fn set_param_keeps_the_other_offsets_consistent() {
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

    /// Concatenated fragments that sometimes form a message.
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
        fn parsed_messages_can_be_rewritten(text in soup(), value in "[1-9][0-9]{0,3}") {
            let Ok(mut message) = Envelope::parse(text.as_bytes()) else { return Ok(()) };
            let flat = text.replace(['\n', '\r'], " ");
            prop_assert_eq!(&message.clone().into_line(), flat.as_bytes());
            if let MessageKind::Request { id, .. } = message.kind().clone() {
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
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Envelope::parse(&bytes).is_err() || std::str::from_utf8(&bytes).is_ok());
        }
    }
}
