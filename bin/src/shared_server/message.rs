//! One JSON-RPC message, parsed only as far as routing needs.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The code that MCP's SDKs use for a closed connection.
const CONNECTION_CLOSED: i32 = -32000;

/// A message of the bridge, by its kind. Ids are JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OutgoingMessage {
    /// The request that opens a session.
    Initialize(String),
    /// Any other request.
    Request(String),
    /// The notification that the request with this id is cancelled.
    Cancelled(String),
    /// The notification that the handshake is complete.
    Initialized,
    /// Any other notification, or a response to a request of the server.
    NotificationOrResponse,
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
struct InitializeResult {
    protocol_version: String,
}

impl OutgoingMessage {
    /// Reads a line; `None` if it is not a message, which the bridge never writes.
    pub(super) fn read(line: &[u8]) -> Option<Self> {
        let envelope: Envelope<'_> = serde_json::from_slice(line).ok()?;
        let id = envelope.id.map(|id| id.get().to_owned());
        Some(match (envelope.method.as_deref(), id) {
            (Some("initialize"), Some(id)) => Self::Initialize(id),
            (Some(_), Some(id)) => Self::Request(id),
            (Some("notifications/cancelled"), None) => {
                let named = envelope
                    .params
                    .and_then(|params| serde_json::from_str(params.get()).ok());
                named.map_or(Self::NotificationOrResponse, |Cancellation { request_id }| {
                    Self::Cancelled(request_id.get().to_owned())
                })
            }
            (Some("notifications/initialized"), None) => Self::Initialized,
            (Some(_) | None, _) => Self::NotificationOrResponse,
        })
    }
}

/// Tells whether a message of the server is the response to the request with this id.
pub(super) fn is_response_to(message: &[u8], id: &str) -> bool {
    serde_json::from_slice::<Envelope<'_>>(message).is_ok_and(|envelope| {
        envelope.method.is_none()
            && (envelope.result.is_some() || envelope.error.is_some())
            && envelope.id.is_some_and(|given| given.get() == id)
    })
}

/// The protocol version in the response to an `initialize`; `None` for an error.
pub(super) fn negotiated_version(response: &[u8]) -> Option<String> {
    let envelope: Envelope<'_> = serde_json::from_slice(response).ok()?;
    let result: InitializeResult = serde_json::from_str(envelope.result?.get()).ok()?;
    Some(result.protocol_version)
}

/// A message as one line. In JSON, line breaks stand only between tokens, where a space is
/// equivalent.
pub(super) fn line(mut message: Vec<u8>) -> Bytes {
    for byte in &mut message {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    message.push(b'\n');
    message.into()
}

/// The error response to the request with this id (JSON text), as one line.
pub(super) fn error_line(id: &str, message: &str) -> Bytes {
    let message = serde_json::Value::from(message);
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{CONNECTION_CLOSED},"message":{message}}}}}"#);
    line(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_by_kind() {
        let read = |text: &str| OutgoingMessage::read(text.as_bytes());
        let id = || "7".to_owned();
        for (text, expected) in [
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"initialize"}"#,
                OutgoingMessage::Initialize(id()),
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"method":"tools/call"}"#,
                OutgoingMessage::Request(id()),
            ),
            (
                r#"{"jsonrpc":"2.0","id":7,"result":{}}"#,
                OutgoingMessage::NotificationOrResponse,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                OutgoingMessage::Initialized,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
                OutgoingMessage::NotificationOrResponse,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}"#,
                OutgoingMessage::Cancelled(id()),
            ),
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        assert_eq!(read("nonsense"), None);
    }

    #[test]
    fn response_has_the_id_and_an_outcome() {
        assert!(is_response_to(br#"{"jsonrpc":"2.0", "id": 7, "result":{}}"#, "7"));
        assert!(is_response_to(br#"{"jsonrpc":"2.0","id":7,"error":{}}"#, "7"));
        for other in [
            r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":8,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            "[]",
        ] {
            assert!(!is_response_to(other.as_bytes(), "7"), "{other}");
        }
    }

    #[test]
    fn error_negotiates_no_version() {
        let granted = br#"{"id":1,"result":{"protocolVersion":"2025-06-18"}}"#;
        assert_eq!(negotiated_version(granted).as_deref(), Some("2025-06-18"));
        assert_eq!(
            negotiated_version(br#"{"id":1,"error":{"protocolVersion":"2025-06-18"}}"#),
            None
        );
        assert_eq!(negotiated_version(br#"{"id":1,"result":{}}"#), None);
    }

    #[test]
    fn messages_and_errors_are_one_line() {
        assert_eq!(line(b"{\r\n\"a\":1}".to_vec()), &b"{  \"a\":1}\n"[..]);
        let error = error_line("7", "it \"broke\"");
        assert!(error.ends_with(b"\n") && is_response_to(&error, "7"));
    }
}
