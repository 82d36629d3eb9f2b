//! A shallow parse of a JSON-RPC message: its kind and its id.
//!
//! It is done only where the registry itself has to answer or to open a session; with a good
//! session id the body goes to the backend unread. The id is kept as the client wrote it, so that
//! an error echoes it byte for byte. Batches are not part of MCP since 2025-06-18 and are malformed
//! here.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// A message as far as the registry reads it.
pub(crate) struct Message<'a> {
    pub(crate) kind: MessageKind,
    /// The id that an error about this message has to carry: a string or a number, as the client
    /// wrote it.
    pub(crate) id: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// The request `initialize`: the handshake of the legacy era.
    Initialize,
    /// The request `server/discover`, with which a modern client starts.
    Discover,
    /// Any other request.
    Request,
    /// No answer to it is expected.
    NotificationOrResponse,
    /// JSON, but not one JSON-RPC 2.0 message as MCP defines it. If it has an id, its sender may
    /// wait for an answer with that.
    Malformed,
    NotJson,
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
        match serde_json::from_slice::<Envelope<'a>>(body) {
            Ok(envelope) => envelope.message(),
            Err(error) => {
                // An object with a key twice, or no object at all: still JSON if it reads as one
                // value.
                let is_json = error.is_data() && serde_json::from_slice::<&RawValue>(body).is_ok();
                let kind = if is_json {
                    MessageKind::Malformed
                } else {
                    MessageKind::NotJson
                };
                Self { kind, id: None }
            }
        }
    }
}

/// True if the answer of a backend is a JSON-RPC response with a result.
pub(crate) fn is_success(answer: &[u8]) -> bool {
    // Some servers write both members of an answer, the one that does not apply as `null`.
    let is_null = |value: &RawValue| value.get() == "null";
    serde_json::from_slice::<Envelope<'_>>(answer).is_ok_and(|e| e.result.is_some() && e.error.is_none_or(is_null))
}

impl<'a> Envelope<'a> {
    fn message(&self) -> Message<'a> {
        let is_id = |id: &&str| id.starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit());
        let id = self.id.map(RawValue::get).filter(is_id);
        let method = self.method.map(RawValue::get).filter(|method| method.starts_with('"'));
        let is_response = self.result.is_some() || self.error.is_some();
        // JSON-RPC 2.0 section 4: "jsonrpc" must be exactly "2.0".
        let is_version_2 = self.jsonrpc.map(RawValue::get) == Some("\"2.0\"");
        let (kind, id) = match (method, id, is_response) {
            _ if !is_version_2 => (MessageKind::Malformed, id),
            // MCP 2025-11-25, basic, "Requests": the id must not be null.
            (Some(_), None, false) if self.id.is_none() => (MessageKind::NotificationOrResponse, None),
            (None, Some(_), true) if self.method.is_none() => (MessageKind::NotificationOrResponse, None),
            // A method that is written with escapes is none of the two: no client does that.
            (Some("\"initialize\""), Some(_), false) => (MessageKind::Initialize, id),
            (Some("\"server/discover\""), Some(_), false) => (MessageKind::Discover, id),
            (Some(_), Some(_), false) => (MessageKind::Request, id),
            _ => (MessageKind::Malformed, id),
        };
        Message { kind, id }
    }
}

/// Distinguishes a field that is `null` from one that is absent.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&'a RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(body: &str) -> Option<String> {
        Message::parse(body.as_bytes()).id.map(str::to_owned)
    }

    #[test]
    fn null_error_is_no_error() {
        assert!(is_success(br#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#));
        assert!(!is_success(
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#
        ));
        assert!(!is_success(br#"{"jsonrpc":"2.0","id":1}"#));
    }

    #[test]
    fn malformed_message_may_have_an_id() {
        assert_eq!(id(r#"{"id":1}"#).as_deref(), Some("1"));
        assert_eq!(
            id(r#"{"jsonrpc":"1.0","id":"a","method":"b"}"#).as_deref(),
            Some("\"a\"")
        );
        assert_eq!(id(r#"{"id":[1],"method":"b"}"#), None);
    }

    #[test]
    fn id_is_kept_byte_for_byte() {
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
    fn methods_are_distinguished() {
        let method = |name: &str| {
            let body = format!(r#"{{"id":1,"params":{{"method":"x","id":9}},"method":"{name}","jsonrpc":"2.0"}}"#);
            Message::parse(body.as_bytes()).kind
        };
        assert_eq!(method("initialize"), MessageKind::Initialize);
        assert_eq!(method("server/discover"), MessageKind::Discover);
        assert_eq!(method("tools/call"), MessageKind::Request);
    }

    #[test]
    fn notifications_and_responses_wait_for_nothing() {
        for body in [
            r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":"s","error":{"code":1,"message":""}}"#,
            r#"{"jsonrpc":"2.0","id":3,"result":null}"#,
        ] {
            let message = Message::parse(body.as_bytes());
            assert_eq!(message.kind, MessageKind::NotificationOrResponse, "{body}");
            assert_eq!(message.id, None, "{body}");
        }
    }

    #[test]
    fn malformed_json_rpc_is_distinguished_from_no_json() {
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
            assert_eq!(Message::parse(body.as_bytes()).kind, MessageKind::Malformed, "{body}");
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
            assert_eq!(Message::parse(body.as_bytes()).kind, MessageKind::NotJson, "{body}");
        }
        assert_eq!(
            Message::parse(b"{\"jsonrpc\":\"2.0\",\"method\":\"\xff\"}").kind,
            MessageKind::NotJson
        );
    }

    #[test]
    fn only_result_is_success() {
        assert!(is_success(br#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        assert!(!is_success(
            br#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#
        ));
        assert!(!is_success(b"nope"));
        assert!(!is_success(b""));
    }
}
