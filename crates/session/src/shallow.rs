//! A shallow look at a message: its kind, its id, its method.
//!
//! Taken only where the registry itself has to answer or to open a session; with a good session id the body goes to the
//! backend unread. The id is kept as the client wrote it, so that an error echoes it byte for byte. Batches are not MCP
//! since 2025-06-18 and are not a message here.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A request: it has a method and an id, and waits for an answer.
    Request { id: Id<'a>, method: Method<'a> },
    /// A notification, or an answer to a request of the server: nothing waits for what is said to it.
    OneWay,
    /// JSON, but not one JSON-RPC 2.0 message as MCP defines it. If it has something that is good as an id, then whoever sent it
    /// may wait for an answer with that.
    Malformed { id: Option<Id<'a>> },
    /// Not JSON.
    NotJson,
}

/// The id of a request, as the client wrote it: a string or a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id<'a>(&'a str);

/// The methods that matter before there is a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method<'a> {
    /// The handshake of the legacy era.
    Initialize,
    /// The question with which a modern client starts.
    Discover,
    /// Any other method.
    Other(&'a str),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Self {
        let envelope = match serde_json::from_slice::<Envelope<'a>>(body) {
            Ok(envelope) => envelope,
            // An object with a key twice, or no object at all: still JSON if it reads as one value.
            Err(error) if error.is_data() && serde_json::from_slice::<&RawValue>(body).is_ok() => {
                return Self::Malformed { id: None };
            }
            Err(_) => return Self::NotJson,
        };
        envelope.kind()
    }

    /// The id that an error about this message has to carry.
    pub(crate) fn id(&self) -> Option<Id<'a>> {
        match self {
            Self::Request { id, .. } => Some(*id),
            Self::Malformed { id } => *id,
            Self::OneWay | Self::NotJson => None,
        }
    }
}

/// Whether an answer of a backend is a success: a JSON-RPC response with a result.
pub(crate) fn is_success(answer: &[u8]) -> bool {
    serde_json::from_slice::<Envelope<'_>>(answer).is_ok_and(|e| e.result.is_some() && e.error.is_none_or(is_null))
}

impl<'a> Envelope<'a> {
    fn kind(&self) -> Message<'a> {
        let malformed = Message::Malformed {
            id: self.id.filter(|id| is_id(id)).map(|id| Id(id.get())),
        };
        // JSON-RPC 2.0 section 4: "jsonrpc" must be exactly "2.0".
        if self.jsonrpc.map(RawValue::get) != Some("\"2.0\"") {
            return malformed;
        }
        let answers = self.result.is_some() || self.error.is_some();
        match (self.method, self.id, answers) {
            (Some(method), None, false) if is_string(method) => Message::OneWay,
            (None, Some(id), true) if is_id(id) => Message::OneWay,
            (Some(method), Some(id), false) if is_string(method) && is_id(id) => Message::Request {
                id: Id(id.get()),
                method: Method::of(method),
            },
            // MCP 2025-11-25, basic, "Requests": the id must not be null.
            _ => malformed,
        }
    }
}

impl<'a> Method<'a> {
    fn of(method: &'a RawValue) -> Self {
        // A method that is written with escapes is none of the two: no client does that.
        match method.get() {
            "\"initialize\"" => Self::Initialize,
            "\"server/discover\"" => Self::Discover,
            other => Self::Other(other),
        }
    }
}

impl<'a> Id<'a> {
    /// The id as JSON.
    pub(crate) fn as_json(self) -> &'a str {
        self.0
    }
}

/// Tells a field that is `null` from one that is not there.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

/// Some servers write both members of an answer, the one that does not apply as `null`.
fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

fn is_string(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

fn is_id(value: &RawValue) -> bool {
    value
        .get()
        .starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(body: &str) -> Option<String> {
        Message::parse(body.as_bytes()).id().map(|id| id.as_json().to_owned())
    }

    #[test]
    fn an_error_that_is_null_is_none() {
        assert!(is_success(br#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#));
        assert!(!is_success(
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#
        ));
        assert!(!is_success(br#"{"jsonrpc":"2.0","id":1}"#));
    }

    #[test]
    fn what_is_no_message_may_have_an_id_all_the_same() {
        assert_eq!(id(r#"{"id":1}"#).as_deref(), Some("1"));
        assert_eq!(
            id(r#"{"jsonrpc":"1.0","id":"a","method":"b"}"#).as_deref(),
            Some("\"a\"")
        );
        assert_eq!(id(r#"{"id":[1],"method":"b"}"#), None);
    }

    #[test]
    fn the_id_is_kept_byte_for_byte() {
        for written in [
            "0",
            "-7",
            "1.50",
            "1e3",
            "12345678901234567890123",
            r#""a""#,
            r#""\u00e9\"x""#,
            r#""""#,
        ] {
            let body = format!(r#"{{"jsonrpc":"2.0","id": {written} ,"method":"tools/list"}}"#);
            assert_eq!(id(&body).as_deref(), Some(written));
        }
    }

    #[test]
    fn methods_are_told_apart() {
        let method = |name: &str| {
            let body = format!(r#"{{"id":1,"params":{{"method":"x","id":9}},"method":"{name}","jsonrpc":"2.0"}}"#);
            match Message::parse(body.as_bytes()) {
                Message::Request {
                    method: Method::Initialize,
                    ..
                } => 'i',
                Message::Request {
                    method: Method::Discover,
                    ..
                } => 'd',
                Message::Request {
                    method: Method::Other(_),
                    ..
                } => 'o',
                Message::OneWay | Message::Malformed { .. } | Message::NotJson => '-',
            }
        };
        assert_eq!(method("initialize"), 'i');
        assert_eq!(method("server/discover"), 'd');
        assert_eq!(method("tools/call"), 'o');
    }

    #[test]
    fn notifications_and_answers_wait_for_nothing() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"s","error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":null}"#,
        ] {
            assert_eq!(Message::parse(body.as_bytes()), Message::OneWay, "{body}");
        }
    }

    #[test]
    fn json_that_is_no_message_is_told_from_no_json() {
        for body in [
            "[]",
            "1",
            "null",
            "{}",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
            r#"{"id":1,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
        ] {
            assert!(
                matches!(Message::parse(body.as_bytes()), Message::Malformed { .. }),
                "{body}"
            );
        }
        for body in [
            "",
            " ",
            "{",
            "nope",
            r#"{"jsonrpc":"2.0""#,
            "[1,",
            r#"{"id":1,"id":2,"#,
            "{} {}",
        ] {
            assert_eq!(Message::parse(body.as_bytes()), Message::NotJson, "{body}");
        }
        assert_eq!(
            Message::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}"),
            Message::NotJson
        );
    }

    #[test]
    fn only_a_result_is_a_success() {
        assert!(is_success(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        assert!(!is_success(
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#
        ));
        assert!(!is_success(b"nope"));
        assert!(!is_success(b""));
    }
}
