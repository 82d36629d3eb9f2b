//! JSON-RPC 2.0 messages: reading them, and writing those that the bridge sends itself.
//!
//! Codes from -32600 down are those of JSON-RPC 2.0 section 5.1. The MCP SDKs use -32000 for a
//! closed connection and -32001 for a timeout.

mod envelope;
mod id;
pub(crate) mod json;
pub(crate) mod object;

use std::fmt;

use bytes::Bytes;

pub(crate) use self::{
    envelope::{Envelope, MessageError, MessageKind},
    id::{Id, RequestKey},
};

pub(crate) const PARSE_ERROR: i32 = -32700;
pub(crate) const INVALID_REQUEST: i32 = -32600;
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// The other side of the bridge is gone or unreachable.
pub(crate) const UNAVAILABLE: i32 = -32000;
/// The other side did not answer in time.
pub(crate) const TIMED_OUT: i32 = -32001;

/// A request with an id and parameters (JSON texts).
pub(crate) fn request(id: impl fmt::Display, method: &str, params: impl fmt::Display) -> String {
    let method = json::quote(method);
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{method},"params":{params}}}"#)
}

/// The result or the error of a response (JSON text), and whether it is an error.
pub(crate) fn outcome(response: &[u8]) -> Option<(&str, bool)> {
    let text = std::str::from_utf8(response).ok()?;
    let [result, error] = json::members(text, ["result", "error"]).ok()?;
    // Some servers write `"error": null` beside a result.
    match error.map(|at| &text[at]).filter(|error| *error != "null") {
        Some(error) => Some((error, true)),
        None => Some((&text[result?], false)),
    }
}

/// The code of an error (JSON text).
pub(crate) fn error_code(error: &str) -> Option<i64> {
    error[json::member(error, "code")?].parse().ok()
}

/// An error response to the request with the id `id` (JSON text).
pub(crate) fn error(id: &str, code: i32, message: &str) -> Bytes {
    error_with(Some(id), code, message, None)
}

/// An error response with `data` (JSON text). An unknown id is left out (MCP 2025-11-25,
/// `JSONRPCErrorResponse`): some clients wait forever on `null`.
pub(crate) fn error_with(id: Option<&str>, code: i32, message: &str, data: Option<&str>) -> Bytes {
    let message = json::quote(message);
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"message":{message}{data}}}}}"#).into()
}

/// An error (JSON text) for the request with the id `id` (JSON text).
pub(crate) fn error_text(id: &str, error: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
}

/// A result (JSON text) for the request with the id `id` (JSON text).
pub(crate) fn result(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// A cancellation of the request with the id `id` (JSON text).
pub(crate) fn cancelled(id: &str, reason: &str) -> Bytes {
    let reason = json::quote(reason);
    let method = r#""method":"notifications/cancelled""#;
    format!(r#"{{"jsonrpc":"2.0",{method},"params":{{"requestId":{id},"reason":{reason}}}}}"#).into()
}

/// A notification without parameters.
pub(crate) fn notification(method: &str) -> Bytes {
    let method = json::quote(method);
    format!(r#"{{"jsonrpc":"2.0","method":{method}}}"#).into()
}

#[cfg(feature = "http")]
pub(crate) fn ping(number: u64) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{number},"method":"ping"}}"#).into()
}

pub(crate) fn initialized() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_messages_are_valid_json_rpc() {
        for line in [
            error("7", PARSE_ERROR, "a \"quoted\" text"),
            error_with(Some("\"x\""), INVALID_REQUEST, "text", Some("{\"a\":[1]}")),
            result("0", "{}"),
        ] {
            let message = Envelope::parse(&line).expect("a message");
            assert!(matches!(message.kind(), MessageKind::Response { .. }));
        }
        let without_id = error_with(None, PARSE_ERROR, "text", None);
        assert_eq!(
            without_id,
            r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"text"}}"#
        );
        let cancel = Envelope::parse(&cancelled("7", "because")).expect("a message");
        assert_eq!(cancel.param("requestId"), Some("7"));
        assert_eq!(
            *Envelope::parse(&initialized()).expect("a message").kind(),
            MessageKind::Notification {
                method: "notifications/initialized".into()
            }
        );
    }
}
