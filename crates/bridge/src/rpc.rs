//! The JSON-RPC messages that a bridge writes itself, and their error codes.
//!
//! Codes below -32600 are those of JSON-RPC 2.0 section 5.1; -32000 and -32001 are what the MCP SDKs use for a closed
//! connection and for a timeout.

use bytes::Bytes;

use crate::json;

/// The text is not JSON.
pub(crate) const PARSE_ERROR: i32 = -32700;
/// The JSON is not a message that can be taken.
pub(crate) const INVALID_REQUEST: i32 = -32600;
/// The parameters are not what the method takes.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// The other side of the bridge is gone, or cannot be reached now.
pub(crate) const UNAVAILABLE: i32 = -32000;
/// The other side did not answer in time.
pub(crate) const TIMED_OUT: i32 = -32001;

/// An error for the request with the id `id` (JSON text).
pub(crate) fn error(id: &str, code: i32, message: &str) -> Bytes {
    error_with(Some(id), code, message, None)
}

/// An error with `data` (JSON text). Where no id is known it has none (MCP 2025-11-25, `JSONRPCErrorResponse`): with `null` for an
/// id some clients wait for ever.
pub(crate) fn error_with(id: Option<&str>, code: i32, message: &str, data: Option<&str>) -> Bytes {
    let message = json::quote(message);
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    let id = id.map(|id| format!(r#""id":{id},"#)).unwrap_or_default();
    format!(r#"{{"jsonrpc":"2.0",{id}"error":{{"code":{code},"message":{message}{data}}}}}"#).into()
}

/// A result (JSON text) for the request with the id `id` (JSON text).
pub(crate) fn result(id: &str, result: &str) -> Bytes {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).into()
}

/// Tells the server that nobody waits for its answer to the request `id` any more.
pub(crate) fn cancelled(id: u64, reason: &str) -> Bytes {
    let reason = json::quote(reason);
    let method = r#""method":"notifications/cancelled""#;
    format!(r#"{{"jsonrpc":"2.0",{method},"params":{{"requestId":{id},"reason":{reason}}}}}"#).into()
}

/// The end of a handshake.
pub(crate) fn initialized() -> Bytes {
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{Envelope, Kind};

    #[test]
    fn what_a_bridge_writes_is_json_rpc() {
        for line in [
            error("7", PARSE_ERROR, "a \"quoted\" text"),
            error_with(Some("\"x\""), INVALID_REQUEST, "text", Some("{\"a\":[1]}")),
            result("0", "{}"),
        ] {
            let message = Envelope::parse(&line).expect("a message");
            assert!(matches!(message.kind(), Kind::Response { .. }));
        }
        let nobodys = error_with(None, PARSE_ERROR, "text", None);
        assert_eq!(nobodys, r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"text"}}"#);
        let cancel = Envelope::parse(&cancelled(7, "because")).expect("a message");
        assert_eq!(cancel.param("requestId"), Some("7"));
        assert_eq!(
            *Envelope::parse(&initialized()).expect("a message").kind(),
            Kind::Notification {
                method: "notifications/initialized".into()
            }
        );
    }
}
