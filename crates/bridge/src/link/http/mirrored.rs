//! The headers that mirror a request (MCP 2026-07-28, transports, "Request Metadata").
//!
//! Left out: `Mcp-Param-*`, for which the link would have to know the schemas of the server's
//! tools.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::endpoint::PROTOCOL_VERSION;
use crate::{
    jsonrpc::{Envelope, json},
    modern::VERSION,
};

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The headers of a request (JSON text).
pub(super) fn headers(line: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(VERSION));
    let Ok(message) = Envelope::parse(line) else {
        return headers;
    };
    let method = message.method().unwrap_or_default();
    // A method that no header can have is one that no server has.
    if let Ok(value) = HeaderValue::try_from(method) {
        headers.insert(METHOD, value);
    }
    let member = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _other => return headers,
    };
    let name = message.param(member).and_then(json::string);
    if let Some(Ok(value)) = name.map(|name| HeaderValue::try_from(encoded(name))) {
        headers.insert(NAME, value);
    }
    headers
}

/// A value as a header can have it. Base64 also protects spaces at the ends, and a value that looks
/// like one that is encoded.
fn encoded(value: String) -> String {
    let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && value.trim_ascii() == value
        && !value.starts_with("=?base64?");
    if is_plain {
        return value;
    }
    format!("=?base64?{}?=", STANDARD.encode(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(method: &str, params: &str) -> Option<String> {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
        let headers = headers(line.as_bytes());
        assert_eq!(headers["mcp-protocol-version"], VERSION);
        assert_eq!(headers["mcp-method"], method);
        Some(headers.get("mcp-name")?.to_str().expect("text").to_owned())
    }

    #[test]
    fn names_are_mirrored_and_encoded_if_necessary() {
        for (method, params, expected) in [
            ("tools/call", r#"{"name":"a b"}"#, Some("a b")),
            ("prompts/get", r#"{"name":"\u00e9"}"#, Some("=?base64?w6k=?=")),
            ("resources/read", r#"{"uri":"x://y","name":"z"}"#, Some("x://y")),
            ("tasks/get", r#"{"taskId":" a"}"#, Some("=?base64?IGE=?=")),
            ("tasks/update", r#"{"taskId":"a\nb"}"#, Some("=?base64?YQpi?=")),
            (
                "tasks/cancel",
                r#"{"taskId":"=?base64?YQ==?="}"#,
                Some("=?base64?PT9iYXNlNjQ/WVE9PT89?="),
            ),
            ("tools/call", r#"{"name":1}"#, None),
            ("tools/list", r#"{"name":"a"}"#, None),
        ] {
            assert_eq!(name(method, params).as_deref(), expected, "{method} {params}");
        }
    }
}
