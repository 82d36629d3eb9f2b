//! Rewrites the results and errors of a server of 2025-11-25 for clients of this era.

use super::{META_RELATED_TASK, META_SERVER_INFO, TASKS_EXTENSION, VERSION, error};
use crate::jsonrpc::{
    self, INVALID_PARAMS, TIMED_OUT, UNAVAILABLE, json,
    object::{Object, elements},
};

/// The codes of 2025-11-25 that do not exist here (MCP 2026-07-28, basic, "Error Codes").
const RESOURCE_NOT_FOUND: i64 = -32002;
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32042;

/// A complete result for a request with this method; `None` if the result is not an object.
///
/// The hints for caches say what is true of every list of a server with one user: it is private,
/// and may change at any time.
pub(crate) fn complete(method: &str, result: &str, server_info: Option<&str>) -> Option<String> {
    if !is_cacheable(method)
        && let Some(result) = append_members(result, server_info)
    {
        return Some(result);
    }
    let mut result = Object::parse(result)?;
    if method == "tools/list"
        && let Some(tools) = result.get("tools").and_then(elements)
    {
        let tools = tools.into_iter().map(without_execution).collect::<Vec<_>>().join(",");
        result.set("tools", format!("[{tools}]"));
    }
    result.set("resultType", r#""complete""#);
    if is_cacheable(method) {
        let ttl = result.take("ttlMs").filter(|ttl| ttl.parse::<u64>().is_ok());
        result.set("ttlMs", ttl.unwrap_or("0".into()));
        result.set("cacheScope", r#""private""#);
    }
    set_server_info(&mut result, server_info);
    Some(result.to_string())
}

/// Appends what makes a result complete; `None` if it may have one of these members already. Most
/// results of tools have none, and pass without a list of their members.
fn append_members(result: &str, server_info: Option<&str>) -> Option<String> {
    let [None, None] = json::members(result, ["resultType", "_meta"]).ok()? else {
        return None;
    };
    let members = result.strip_suffix('}')?;
    let is_empty = members.trim_end() == "{";
    let comma = if is_empty { "" } else { "," };
    let meta = server_info.map(|info| format!(r#","_meta":{{"{META_SERVER_INFO}":{info}}}"#));
    let meta = meta.unwrap_or_default();
    Some([members, comma, r#""resultType":"complete""#, &meta, "}"].concat())
}

/// The result of `server/discover` that an `InitializeResult` stands for; `None` if it is not an
/// object.
pub(crate) fn discover(initialized: &str) -> Option<String> {
    let initialized = Object::parse(initialized)?;
    let mut capabilities = Object::parse(initialized.get("capabilities").unwrap_or("{}"))?;
    let tasks = capabilities.take("tasks");
    let tasks = tasks.and_then(|tasks| serde_json::from_str::<serde_json::Value>(&tasks).ok());
    if tasks.is_some_and(|tasks| tasks.pointer("/requests/tools/call").is_some()) {
        let extensions = capabilities.take("extensions").unwrap_or("{}".into());
        let mut extensions = Object::parse(&extensions)?;
        extensions.set(TASKS_EXTENSION, "{}");
        let extensions = extensions.to_string();
        capabilities.set("extensions", extensions);
    }
    let mut result = Object::default();
    result.set("resultType", r#""complete""#);
    result.set("supportedVersions", format!(r#"["{VERSION}"]"#));
    result.set("capabilities", capabilities.to_string());
    if let Some(instructions) = initialized.get("instructions") {
        result.set("instructions", instructions);
    }
    result.set("ttlMs", "0");
    result.set("cacheScope", r#""private""#);
    set_server_info(&mut result, initialized.get("serverInfo"));
    Some(result.to_string())
}

/// An error (JSON text) with a code of this era. `uri` is the resource that the request names.
pub(crate) fn translate_error(text: &str, uri: Option<&str>) -> String {
    let code = jsonrpc::error_code(text);
    let Some(mut error) = Object::parse(text) else {
        return text.to_owned();
    };
    match code {
        Some(RESOURCE_NOT_FOUND) => {
            error.set("code", INVALID_PARAMS.to_string());
            let data = error.get("data").and_then(Object::parse);
            if data.is_none_or(|data| data.get("uri").is_none())
                && let Some(uri) = uri
            {
                error.set("data", format!(r#"{{"uri":{}}}"#, json::quote(uri)));
            }
        }
        // Codes that this era defines otherwise, or has no meaning for.
        Some(-32099..=-32020) => {
            error.set("code", error::INTERNAL.to_string());
            error.set("data", format!(r#"{{"error":{text}}}"#));
        }
        Some(code) if code == i64::from(UNAVAILABLE) || code == i64::from(TIMED_OUT) => {
            error.set("code", error::INTERNAL.to_string());
        }
        _other => {}
    }
    error.to_string()
}

/// True if a result of `tools/call` tells a failure.
pub(crate) fn is_tool_error(result: &str) -> bool {
    json::member(result, "isError").is_some_and(|at| &result[at] == "true")
}

/// A result that asks for input. `questions` are the keys with their requests (JSON texts).
pub(crate) fn input_required<'q>(
    questions: impl Iterator<Item = (&'q str, String)>,
    state: &str,
    server_info: Option<&str>,
) -> String {
    let questions = questions.map(|(key, request)| format!("{}:{request}", json::quote(key)));
    let questions = questions.collect::<Vec<_>>().join(",");
    let mut result = Object::default();
    result.set("resultType", r#""input_required""#);
    result.set("inputRequests", format!("{{{questions}}}"));
    result.set("requestState", json::quote(state));
    set_server_info(&mut result, server_info);
    result.to_string()
}

/// A task of a server (JSON text) as clients of this era get it, with its members at the top, under
/// another id.
pub(crate) fn flat_task<'t>(task: &'t str, id: &str) -> Option<Object<'t>> {
    let task = Object::parse(task)?;
    let whole = |name| {
        // Servers may write milliseconds as fractions.
        let value: f64 = task.get(name)?.parse().ok()?;
        Some(format!("{}", value.round() as u64))
    };
    let mut flat = Object::default();
    flat.set("taskId", json::quote(id));
    for name in ["status", "statusMessage", "createdAt", "lastUpdatedAt"] {
        if let Some(value) = task.get(name) {
            flat.set(name, value.to_owned());
        }
    }
    flat.set("ttlMs", whole("ttl").unwrap_or_else(|| "null".to_owned()));
    if let Some(interval) = whole("pollInterval") {
        flat.set("pollIntervalMs", interval);
    }
    Some(flat)
}

/// The result of a request that runs on as a task.
pub(crate) fn created_task(task: &str, id: &str, server_info: Option<&str>) -> Option<String> {
    let mut result = flat_task(task, id)?;
    result.set("resultType", r#""task""#);
    set_server_info(&mut result, server_info);
    Some(result.to_string())
}

/// A complete result without members of its own.
pub(crate) fn acknowledged(server_info: Option<&str>) -> String {
    let mut result = Object::default();
    result.set("resultType", r#""complete""#);
    set_server_info(&mut result, server_info);
    result.to_string()
}

fn is_cacheable(method: &str) -> bool {
    matches!(
        method,
        "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" | "resources/read"
    )
}

fn without_execution(tool: &str) -> String {
    match Object::parse(tool) {
        Some(mut tool) => {
            tool.take("execution");
            tool.to_string()
        }
        None => tool.to_owned(),
    }
}

fn set_server_info(result: &mut Object<'_>, server_info: Option<&str>) {
    let meta = result.take("_meta").unwrap_or("{}".into());
    let mut meta = Object::parse(&meta).unwrap_or_default();
    meta.take(META_RELATED_TASK);
    if let Some(info) = server_info {
        meta.set(META_SERVER_INFO, info);
    }
    let meta = (!meta.is_empty()).then(|| meta.to_string());
    if let Some(meta) = meta {
        result.set("_meta", meta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_complete_and_keeps_the_rest() {
        let result = complete(
            "tools/call",
            r#"{"structuredContent":[1.0],"_meta":{"a":1}}"#,
            Some(r#"{"name":"s"}"#),
        );
        assert_eq!(
            result.as_deref(),
            Some(
                r#"{"structuredContent":[1.0],"resultType":"complete","_meta":{"a":1,"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#
            )
        );
        for (result, completed) in [
            ("{}", r#"{"resultType":"complete"}"#),
            ("{ }", r#"{ "resultType":"complete"}"#),
            (r#"{"a":1}"#, r#"{"a":1,"resultType":"complete"}"#),
            (r#"{"resultType":"other"}"#, r#"{"resultType":"complete"}"#),
        ] {
            assert_eq!(complete("tools/call", result, None).as_deref(), Some(completed));
        }
        assert_eq!(complete("tools/call", "[]", None), None);
        let related = r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"x"}}}"#;
        assert_eq!(
            complete("tools/call", related, None).as_deref(),
            Some(r#"{"resultType":"complete"}"#)
        );
    }

    #[test]
    fn lists_have_hints_for_caches() {
        let list = r#"{"tools":[{"name":"a","execution":{"taskSupport":"optional"},"x":1.0}],"ttlMs":-1,"cacheScope":"public"}"#;
        assert_eq!(
            complete("tools/list", list, None).as_deref(),
            Some(r#"{"tools":[{"name":"a","x":1.0}],"cacheScope":"private","resultType":"complete","ttlMs":0}"#)
        );
        let read = complete("resources/read", r#"{"contents":[],"ttlMs":5}"#, None);
        assert_eq!(
            read.as_deref(),
            Some(r#"{"contents":[],"resultType":"complete","ttlMs":5,"cacheScope":"private"}"#)
        );
    }

    #[test]
    fn discover_tells_the_capabilities_of_this_era() {
        let initialized = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"tasks":{"requests":{"tools":{"call":{}}}}},"serverInfo":{"name":"s"},"instructions":"i"}"#;
        let discovered = discover(initialized).expect("an object");
        assert_eq!(
            discovered,
            r#"{"resultType":"complete","supportedVersions":["2026-07-28"],"capabilities":{"tools":{},"extensions":{"io.modelcontextprotocol/tasks":{}}},"instructions":"i","ttlMs":0,"cacheScope":"private","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s"}}}"#
        );
        assert!(discover("{}").expect("an object").contains(r#""capabilities":{}"#));
    }

    #[test]
    fn errors_have_codes_of_this_era() {
        for (error, translated) in [
            (
                r#"{"code":-32002,"message":"m"}"#,
                r#"{"code":-32602,"message":"m","data":{"uri":"a:b"}}"#,
            ),
            (
                r#"{"code":-32002,"message":"m","data":{"uri":"c:d"}}"#,
                r#"{"code":-32602,"message":"m","data":{"uri":"c:d"}}"#,
            ),
            (
                r#"{"code":-32021,"message":"m"}"#,
                r#"{"code":-32603,"message":"m","data":{"error":{"code":-32021,"message":"m"}}}"#,
            ),
            (r#"{"code":-32000,"message":"m"}"#, r#"{"code":-32603,"message":"m"}"#),
            (r#"{"code":-32601,"message":"m"}"#, r#"{"code":-32601,"message":"m"}"#),
            (r#"{"code":7,"message":"m"}"#, r#"{"code":7,"message":"m"}"#),
        ] {
            assert_eq!(translate_error(error, Some("a:b")), translated, "{error}");
        }
    }
}
