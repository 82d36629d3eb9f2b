//! JSON-RPC as the double speaks it: what a line says, and what a line of answer looks like.

use serde_json::{Value, json};

/// The newest version of MCP that it speaks, and its answer to any that it does not.
pub(super) const NEWEST: &str = "2025-11-25";

/// The versions that it echoes.
const SPOKEN: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST];

/// The code for a line that is not one JSON object.
pub(super) const PARSE_ERROR: i64 = -32700;
/// The code for an object that is not JSON-RPC 2.0.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// The code for a method that it does not have.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// The code for parameters that name nothing it has.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// The code for a tool that failed.
pub(super) const INTERNAL_ERROR: i64 = -32603;
/// The code for a resource that it does not have.
pub(super) const RESOURCE_NOT_FOUND: i64 = -32002;

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// A request, to be answered.
    Request { id: Value, method: String, params: Value },
    /// A notification, or an answer to a question that was never asked: nothing to be done.
    Ignored,
    /// Not a message. What to answer.
    Refused { id: Value, failure: Failure },
}

/// An answer that is an error.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: i64,
    pub(super) message: String,
}

/// The answer to a request.
pub(super) type Outcome = Result<Value, Failure>;

impl Failure {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl Incoming {
    /// Reads a line. Empty lines and batches are as wrong as bad JSON here.
    pub(super) fn read(line: &[u8]) -> Self {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
            return Self::Refused {
                id: Value::Null,
                failure: Failure::new(PARSE_ERROR, "Failed to parse message"),
            };
        };
        let id = message.remove("id").filter(|id| !id.is_null());
        if message.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            let failure = Failure::new(INVALID_REQUEST, "Invalid JSON-RPC version");
            return Self::Refused {
                id: id.unwrap_or(Value::Null),
                failure,
            };
        }
        match (id, message.remove("method")) {
            (Some(id), Some(Value::String(method))) => Self::Request {
                id,
                method,
                params: message.remove("params").unwrap_or(Value::Null),
            },
            (_, _) => Self::Ignored,
        }
    }
}

/// The line that answers a request, without its line feed.
pub(super) fn answer(id: &Value, outcome: Outcome) -> String {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
        Err(Failure { code, message }) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
        }
    }
}

/// The line of a notification, without its line feed.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

/// The result of a tool as text.
pub(super) fn text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

/// The result of `initialize`.
pub(super) fn initialize(params: &Value) -> Value {
    let wanted = params["protocolVersion"].as_str().unwrap_or(NEWEST);
    let version = if SPOKEN.contains(&wanted) { wanted } else { NEWEST };
    json!({
        "protocolVersion": version,
        "capabilities": { "logging": {}, "resources": {}, "tools": { "listChanged": true } },
        "serverInfo": { "name": "Forgejo MCP Server", "version": super::VERSION },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_up_to_the_newest_are_echoed_and_others_get_the_newest() {
        for (wanted, got) in [
            ("2024-11-05", "2024-11-05"),
            ("2025-03-26", "2025-03-26"),
            ("2025-06-18", "2025-06-18"),
            ("2025-11-25", "2025-11-25"),
            ("2026-07-28", "2025-11-25"),
            ("1999-01-01", "2025-11-25"),
        ] {
            assert_eq!(
                initialize(&json!({ "protocolVersion": wanted }))["protocolVersion"],
                got
            );
        }
    }

    #[test]
    fn bad_json_a_batch_and_an_empty_line_are_parse_errors_with_a_null_id() {
        for line in [
            "",
            "{",
            "[]",
            "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            "5",
            "\"x\"",
        ] {
            let Incoming::Refused { id, failure } = Incoming::read(line.as_bytes()) else {
                panic!("{line:?}")
            };
            assert_eq!((id, failure.code), (Value::Null, PARSE_ERROR), "{line:?}");
        }
    }

    #[test]
    fn notifications_and_answers_are_ignored() {
        for line in [
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        ] {
            assert_eq!(Incoming::read(line.as_bytes()), Incoming::Ignored);
        }
    }
}
