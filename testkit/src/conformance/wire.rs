//! JSON-RPC lines: what one says, and how one is written.

use serde_json::{Value, json};

/// The code for parameters that name nothing that is there.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// The code for a method that is not there.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// The code for a line that is not JSON.
const PARSE_ERROR: i64 = -32700;

/// What a line says.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Request {
        id: Value,
        method: String,
        params: Value,
    },
    Notification {
        method: String,
        params: Value,
    },
    /// The client's answer to a question: its result, or its error.
    Answer {
        id: Value,
        outcome: Result<Value, Value>,
    },
    Unreadable,
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
    /// The parameters name nothing that is there.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: INVALID_PARAMS,
            message: message.into(),
        }
    }
}

impl Incoming {
    pub(super) fn read(line: &[u8]) -> Self {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
            return Self::Unreadable;
        };
        let id = message.remove("id");
        let params = message.remove("params").unwrap_or_default();
        match (id, message.remove("method")) {
            (Some(id), Some(Value::String(method))) => Self::Request { id, method, params },
            (None, Some(Value::String(method))) => Self::Notification { method, params },
            (Some(id), None) => {
                let outcome = match (message.remove("result"), message.remove("error")) {
                    (Some(result), None) => Ok(result),
                    (_, error) => Err(error.unwrap_or_default()),
                };
                Self::Answer { id, outcome }
            }
            _ => Self::Unreadable,
        }
    }
}

/// The line that answers a request.
pub(super) fn answer(id: &Value, outcome: Outcome) -> String {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
        Err(Failure { code, message }) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
        }
    }
}

/// The line that answers what cannot be read.
pub(super) fn unreadable() -> String {
    let failure = Failure {
        code: PARSE_ERROR,
        message: "not a JSON-RPC message".to_owned(),
    };
    answer(&Value::Null, Err(failure))
}

/// The line of a question to the client.
pub(super) fn question(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// The line of a notification.
pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}
