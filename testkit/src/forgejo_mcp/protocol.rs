//! The double's JSON-RPC: the messages it reads and the lines it answers with.

use serde_json::{Value, json};

use super::Options;

pub(super) const NEWEST: &str = "2025-11-25";

const SUPPORTED: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST];

pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
pub(super) const INTERNAL_ERROR: i64 = -32603;
pub(super) const RESOURCE_NOT_FOUND: i64 = -32002;

#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Request(Request),
    /// A notification or a response, as it is.
    Other(Value),
    /// Not a message. It is answered with this error.
    Invalid {
        id: Value,
        error: RpcError,
    },
}

#[derive(Debug, PartialEq)]
pub(super) struct Request {
    pub(super) id: Value,
    pub(super) method: String,
    pub(super) params: Value,
}

#[derive(Debug, PartialEq)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
}

impl RpcError {
    pub(super) fn new(code: i64, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

impl Incoming {
    /// Reads a line. Empty lines and batches are as invalid as bad JSON.
    pub(super) fn read(line: &[u8]) -> Self {
        let Ok(Value::Object(mut message)) = serde_json::from_slice(line) else {
            let error = RpcError::new(PARSE_ERROR, "Failed to parse message");
            return Self::Invalid { id: Value::Null, error };
        };
        let id = message.remove("id").filter(|id| !id.is_null());
        if message.get("jsonrpc").is_none_or(|version| version != "2.0") {
            let error = RpcError::new(INVALID_REQUEST, "Invalid JSON-RPC version");
            let id = id.unwrap_or_default();
            return Self::Invalid { id, error };
        }
        let method = message.get("method").and_then(Value::as_str).map(str::to_owned);
        match (id, method) {
            (Some(id), Some(method)) => Self::Request(Request {
                id,
                method,
                params: message.remove("params").unwrap_or_default(),
            }),
            (id, _) => {
                message.extend(id.map(|id| ("id".to_owned(), id)));
                Self::Other(Value::Object(message))
            }
        }
    }
}

pub(super) fn response(id: &Value, outcome: Result<Value, RpcError>) -> String {
    match outcome {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string(),
        Err(RpcError { code, message }) => {
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } }).to_string()
        }
    }
}

pub(super) fn notification(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "method": method, "params": params }).to_string()
}

pub(super) fn text(text: impl Into<String>) -> Value {
    json!({ "content": [{ "type": "text", "text": text.into() }] })
}

pub(super) fn initialize(params: &Value, options: &Options) -> Result<Value, RpcError> {
    let script = &options.script;
    if script.refuses_initialize {
        return Err(RpcError::new(INTERNAL_ERROR, "not today"));
    }
    let wanted = params["protocolVersion"].as_str().unwrap_or(NEWEST);
    let version = if SUPPORTED.contains(&wanted) { wanted } else { NEWEST };
    let mut capabilities = json!({ "logging": {}, "resources": {}, "tools": { "listChanged": true } });
    if options.test_tools {
        capabilities["resources"]["subscribe"] = json!(true);
        capabilities["tasks"] = json!({ "requests": { "tools": { "call": {} } } });
    }
    if let Some(capabilities) = capabilities.as_object_mut() {
        capabilities.retain(|name, _| !script.lacks.contains(name));
    }
    Ok(json!({
        "protocolVersion": script.protocol_version.as_deref().unwrap_or(version),
        "capabilities": capabilities,
        "serverInfo": { "name": "Forgejo MCP Server", "version": super::VERSION },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_up_to_the_newest_are_echoed_and_others_get_the_newest() {
        let options = Options::default();
        let initialize = |version: &str| {
            let params = json!({ "protocolVersion": version });
            initialize(&params, &options).unwrap()
        };
        for supported in SUPPORTED {
            let result = initialize(supported);
            assert_eq!(result["protocolVersion"], supported);
        }
        for other in ["2026-07-28", "1999-01-01"] {
            let result = initialize(other);
            assert_eq!(result["protocolVersion"], "2025-11-25");
        }
    }

    #[test]
    fn bad_json_batch_and_empty_line_are_parse_errors_with_a_null_id() {
        let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#;
        for line in ["", "{", "[]", batch, "5", "\"x\""] {
            let Incoming::Invalid { id, error } = Incoming::read(line.as_bytes()) else {
                panic!("{line:?}")
            };
            assert_eq!((id, error.code), (Value::Null, PARSE_ERROR), "{line:?}");
        }
    }

    #[test]
    fn notifications_and_responses_are_read_as_they_are() {
        for message in [
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }),
            json!({ "jsonrpc": "2.0", "id": 1, "result": {} }),
        ] {
            let line = message.to_string();
            assert_eq!(Incoming::read(line.as_bytes()), Incoming::Other(message));
        }
    }
}
