//! One JSON-RPC message, looked at no closer than its way needs.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The code that MCP's SDKs use for a connection that is gone.
const UNAVAILABLE: i32 = -32000;

/// What a line of the bridge is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outgoing {
    /// The request that opens a session.
    Initialize {
        /// The id, as JSON text.
        id: String,
    },
    /// Any other request.
    Request {
        /// The id, as JSON text.
        id: String,
    },
    /// A notification that nobody waits for a request any more.
    Cancelled {
        /// The id of that request, as JSON text.
        id: String,
    },
    /// The notification that the session is open to use.
    Initialized,
    /// Any other notification, or an answer to a request of the server.
    OneWay,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancellation<'a> {
    #[serde(borrow)]
    request_id: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Negotiated {
    protocol_version: String,
}

impl Outgoing {
    /// What a line is; `None` if it is no message. The bridge writes none such.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let envelope: Envelope<'_> = serde_json::from_slice(line).ok()?;
        let id = envelope.id.map(|id| id.get().to_owned());
        Some(match (envelope.method.as_deref(), id) {
            (Some("initialize"), Some(id)) => Self::Initialize { id },
            (Some(_), Some(id)) => Self::Request { id },
            (Some("notifications/cancelled"), None) => {
                let named = envelope
                    .params
                    .and_then(|params| serde_json::from_str(params.get()).ok());
                named.map_or(Self::OneWay, |Cancellation { request_id }| Self::Cancelled {
                    id: request_id.get().to_owned(),
                })
            }
            (Some("notifications/initialized"), None) => Self::Initialized,
            (Some(_) | None, _) => Self::OneWay,
        })
    }
}

/// Whether a message of the server answers the request with this id.
pub(super) fn answers(message: &[u8], id: &str) -> bool {
    serde_json::from_slice::<Envelope<'_>>(message).is_ok_and(|envelope| {
        envelope.method.is_none()
            && (envelope.result.is_some() || envelope.error.is_some())
            && envelope.id.is_some_and(|given| given.get() == id)
    })
}

/// The protocol version in the answer to an `initialize`; `None` if that was not granted.
pub(super) fn negotiated(answer: &[u8]) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_slice(answer).ok()?;
    let result: Negotiated = serde_json::from_str(envelope.result?.get()).ok()?;
    Some(result.protocol_version)
}

/// The line that a message is on a byte stream. In JSON line breaks stand between tokens only, where a space does as well.
pub(super) fn line(mut message: Vec<u8>) -> Bytes {
    for byte in &mut message {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    message.push(b'\n');
    message.into()
}

/// The line that answers the request with this id (JSON text) by an error.
pub(super) fn error(id: &str, message: &str) -> Bytes {
    let message = serde_json::Value::from(message);
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{UNAVAILABLE},"message":{message}}}}}"#);
    line(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_told_apart() {
        let read = |text: &str| Outgoing::read(text.as_bytes());
        let id = || "7".to_owned();
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"initialize"}"#,
                Outgoing::Initialize { id: id() },
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#,
                Outgoing::Request { id: id() },
            ),
            (r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, Outgoing::OneWay),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                Outgoing::Initialized,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
                Outgoing::OneWay,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}"#,
                Outgoing::Cancelled { id: id() },
            ),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        assert_eq!(read("nonsense"), None);
    }

    #[test]
    fn an_answer_has_the_id_and_an_outcome() {
        assert!(answers(br#"{"jsonrpc":"2.0", "id": 7, "result":{}}"#, "7"));
        assert!(answers(br#"{"jsonrpc":"2.0","id":7,"error":{}}"#, "7"));
        for other in [
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            "[]",
        ] {
            assert!(!answers(other.as_bytes(), "7"), "{other}");
        }
    }

    #[test]
    fn an_error_is_no_agreement_on_a_version() {
        let granted = br#"{"id":1,"result":{"protocolVersion":"2025-06-18"}}"#;
        assert_eq!(negotiated(granted).as_deref(), Some("2025-06-18"));
        assert_eq!(
            negotiated(br#"{"id":1,"error":{"protocolVersion":"2025-06-18"}}"#),
            None
        );
        assert_eq!(negotiated(br#"{"id":1,"result":{}}"#), None);
    }

    #[test]
    fn a_line_is_one_line_and_an_error_is_a_message() {
        assert_eq!(line(b"{\r\n\"a\":1}".to_vec()), &b"{  \"a\":1}\n"[..]);
        let error = error("7", "it \"broke\"");
        assert!(error.ends_with(b"\n") && answers(&error, "7"));
    }
}
