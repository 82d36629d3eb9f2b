//! Results and errors of 2026-07-28 as 2025-11-25 has them.

use bytes::Bytes;

use super::{INTERNAL, META_SERVER_INFO};
use crate::jsonrpc::{
    self, json,
    object::{self, Object},
};

/// What the result of a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResultType {
    Complete,
    InputRequired,
    Task,
    Unknown,
}

/// A resource that does not exist, as of 2025-11-25.
const RESOURCE_NOT_FOUND: i32 = -32002;

impl ResultType {
    pub(super) fn of(result: &Object<'_>) -> Self {
        let Some(text) = result.get("resultType") else {
            return Self::Complete;
        };
        match json::string(text).as_deref() {
            Some("complete") => Self::Complete,
            Some("input_required") => Self::InputRequired,
            Some("task") => Self::Task,
            _other => Self::Unknown,
        }
    }
}

/// The complete result of a request of this method.
pub(super) fn complete(method: &str, mut result: Object<'_>) -> String {
    for name in ["resultType", "ttlMs", "cacheScope"] {
        result.take(name);
    }
    if let Some(text) = result.take("_meta") {
        match Object::parse(&text) {
            Some(mut meta) => {
                meta.take(META_SERVER_INFO);
                if !meta.is_empty() {
                    result.set("_meta", meta.to_string());
                }
            }
            None => result.set("_meta", text),
        }
    }
    match method {
        "tools/call"
            if result
                .get("structuredContent")
                .is_some_and(|content| !is_object(content)) =>
        {
            result.take("structuredContent");
        }
        "tools/list" => {
            if let Some(tools) = result.get("tools").and_then(with_object_schemas) {
                result.set("tools", tools);
            }
        }
        _other => {}
    }
    result.to_string()
}

/// An error response for the request with the id `id` (JSON text). `error` is that of the server.
pub(super) fn error(id: &str, method: &str, error: &str) -> Bytes {
    let Some(mut object) = Object::parse(error) else {
        return jsonrpc::error(id, INTERNAL, super::INVALID_RESPONSE);
    };
    let code = object.get("code").and_then(|code| code.parse::<i64>().ok());
    let names_uri = || {
        object
            .get("data")
            .is_some_and(|data| json::member(data, "uri").is_some())
    };
    match code {
        None => return jsonrpc::error(id, INTERNAL, super::INVALID_RESPONSE),
        // The request was wrong in a way that the client has no part in.
        Some(-32022..=-32020) => object.set("code", INTERNAL.to_string()),
        Some(-32602) if method == "resources/read" && names_uri() => {
            object.set("code", RESOURCE_NOT_FOUND.to_string());
        }
        Some(_) => {}
    }
    jsonrpc::error_text(id, &object.to_string())
}

/// The result of a tool that has failed with this text.
pub(super) fn tool_error(why: &str) -> String {
    let why = json::quote(why);
    format!(r#"{{"content":[{{"type":"text","text":{why}}}],"isError":true}}"#)
}

/// The tools (JSON text) without the output schemas that are not schemas of objects; `None` if all
/// are.
fn with_object_schemas(tools: &str) -> Option<String> {
    let mut changed = false;
    let tools = object::elements(tools)?.into_iter().map(|text| {
        let Some(mut tool) = Object::parse(text) else {
            return text.to_owned();
        };
        let other_root = tool.get("outputSchema").is_some_and(|schema| {
            let root = json::member(schema, "type").and_then(|at| json::string(&schema[at]));
            root.as_deref() != Some("object")
        });
        if !other_root {
            return text.to_owned();
        }
        changed = true;
        tool.take("outputSchema");
        tool.to_string()
    });
    let tools: Vec<String> = tools.collect();
    changed.then(|| format!("[{}]", tools.join(",")))
}

fn is_object(text: &str) -> bool {
    text.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(method: &str, result: &str) -> String {
        complete(method, Object::parse(result).expect("an object"))
    }

    #[test]
    fn complete_results_lose_what_only_this_era_has() {
        for (method, result, expected) in [
            (
                "prompts/list",
                r#"{"resultType":"complete","prompts":[1.0],"ttlMs":5,"cacheScope":"public","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"x"}}}"#,
                r#"{"prompts":[1.0]}"#,
            ),
            (
                "tools/call",
                r#"{"_meta":{"a":1e2,"io.modelcontextprotocol/serverInfo":{}},"content":[]}"#,
                r#"{"content":[],"_meta":{"a":1e2}}"#,
            ),
            (
                "tools/call",
                r#"{"content":[],"structuredContent":[1]}"#,
                r#"{"content":[]}"#,
            ),
            (
                "tools/call",
                r#"{"structuredContent":{"a":1}}"#,
                r#"{"structuredContent":{"a":1}}"#,
            ),
            (
                "prompts/get",
                r#"{"structuredContent":[1]}"#,
                r#"{"structuredContent":[1]}"#,
            ),
            (
                "tools/list",
                r#"{"tools":[{"name":"a","outputSchema":{"type":"array"}},{"name":"b","outputSchema":{"type":"object"}},{"name":"c","outputSchema":{}}]}"#,
                r#"{"tools":[{"name":"a"},{"name":"b","outputSchema":{"type":"object"}},{"name":"c"}]}"#,
            ),
            ("tools/list", r#"{"tools":"x"}"#, r#"{"tools":"x"}"#),
        ] {
            assert_eq!(completed(method, result), expected);
        }
    }

    #[test]
    fn errors_about_the_translation_are_internal() {
        for (method, before, after) in [
            (
                "tools/call",
                r#"{"code":-32020,"message":"m"}"#,
                r#"{"code":-32603,"message":"m"}"#,
            ),
            (
                "tools/call",
                r#"{"code":-32022,"message":"m","data":1}"#,
                r#"{"code":-32603,"message":"m","data":1}"#,
            ),
            (
                "tools/call",
                r#"{"code":-32602,"message":"m","data":{"uri":"u"}}"#,
                r#"{"code":-32602,"message":"m","data":{"uri":"u"}}"#,
            ),
            (
                "resources/read",
                r#"{"code":-32602,"message":"m","data":{"uri":"u"}}"#,
                r#"{"code":-32002,"message":"m","data":{"uri":"u"}}"#,
            ),
            ("x", r#"{"code":5,"message":"m"}"#, r#"{"code":5,"message":"m"}"#),
            (
                "x",
                r#"{"code":"5"}"#,
                r#"{"code":-32603,"message":"the response of the MCP server is invalid"}"#,
            ),
            (
                "x",
                "[]",
                r#"{"code":-32603,"message":"the response of the MCP server is invalid"}"#,
            ),
        ] {
            let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"error":{after}}}"#);
            assert_eq!(error("7", method, before), expected);
        }
    }

    #[test]
    fn a_result_without_a_type_is_complete() {
        for (text, expected) in [
            ("{}", ResultType::Complete),
            (r#"{"resultType":"complete"}"#, ResultType::Complete),
            (r#"{"resultType":"input_required"}"#, ResultType::InputRequired),
            (r#"{"resultType":"task"}"#, ResultType::Task),
            (r#"{"resultType":"other"}"#, ResultType::Unknown),
            (r#"{"resultType":1}"#, ResultType::Unknown),
        ] {
            assert_eq!(ResultType::of(&Object::parse(text).expect("an object")), expected);
        }
    }
}
