//! The double as a server that speaks only MCP 2026-07-28: requests say who sends them, questions
//! are answers, and notifications belong to a `subscriptions/listen`.
//!
//! A tool that asks answers its first request with the questions, and does its work with the second
//! one, which brings the answers. `test_received` shows the `_meta` of requests, too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{
    CallContext, Line, log,
    protocol::{self, INVALID_PARAMS, METHOD_NOT_FOUND, Request, RpcError},
};

const VERSION: &str = "2026-07-28";
const UNSUPPORTED_VERSION: i64 = -32022;
pub(super) const HEADER_MISMATCH: i64 = -32020;
const META_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const META_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const META_LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const META_SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
const LEVELS: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// The open `subscriptions/listen` requests.
#[derive(Default)]
pub(super) struct Listens(Mutex<Vec<Listen>>);

#[derive(Clone)]
pub(super) struct Listen {
    id: Value,
    filter: Value,
    /// The stream of the request.
    stream: mpsc::Sender<Line>,
}

impl Listens {
    /// The requests whose filter matches.
    fn matching(&self, matches: impl Fn(&Value) -> bool) -> Vec<Listen> {
        let mut open = self.open();
        // Over HTTP the client ends a request by closing its stream.
        open.retain(|listen| !listen.stream.is_closed());
        open.iter().filter(|listen| matches(&listen.filter)).cloned().collect()
    }

    fn open(&self) -> MutexGuard<'_, Vec<Listen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles a request that is no call of a tool, or that is not accepted. `false` for any other.
pub(super) async fn serve(context: &CallContext, listens: &Listens, request: &Request) -> bool {
    let Request { id, method, params } = request;
    let meta = &params["_meta"];
    if context.options.script.never_answers.contains(method) {
        return true;
    }
    let outcome = if !meta[META_VERSION].is_string() || !meta[META_CAPABILITIES].is_object() {
        Err(RpcError::new(INVALID_PARAMS, "the request does not say who sends it"))
    } else if meta[META_VERSION] != VERSION {
        Err(RpcError::new(UNSUPPORTED_VERSION, "unsupported protocol version"))
    } else {
        match method.as_str() {
            "server/discover" => protocol::initialize(params, &context.options).map(|mut initialized| {
                let mut capabilities = initialized["capabilities"].take();
                if let Some(capabilities) = capabilities.as_object_mut() {
                    capabilities.remove("tasks");
                }
                json!({ "supportedVersions": [VERSION], "capabilities": capabilities })
            }),
            "subscriptions/listen" => {
                let filter = &params["notifications"];
                log::raw(&format!("listening pid={} {filter}\n", std::process::id()));
                listens.open().push(Listen {
                    id: id.clone(),
                    filter: filter.clone(),
                    stream: context.stream.clone(),
                });
                let params = json!({ "_meta": { META_SUBSCRIPTION: id }, "notifications": filter });
                let method = "notifications/subscriptions/acknowledged";
                context.send(protocol::notification(method, &params)).await;
                return true;
            }
            "initialize" | "ping" | "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe" => {
                Err(RpcError::new(METHOD_NOT_FOUND, format!("Method {method} not found")))
            }
            _other => return false,
        }
    };
    context.answer(id, outcome).await;
    true
}

/// The first header of a request over HTTP that does not mirror it.
pub(super) fn differing_header(headers: &HeaderMap, request: &Request) -> Option<&'static str> {
    let Request { method, params, .. } = request;
    let name = match method.as_str() {
        "tools/call" | "prompts/get" => &params["name"],
        "resources/read" => &params["uri"],
        _other => &Value::Null,
    };
    let sent = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(decoded);
    [
        ("mcp-protocol-version", params["_meta"][META_VERSION].as_str()),
        ("mcp-method", Some(method.as_str())),
        ("mcp-name", name.as_str()),
    ]
    .into_iter()
    .find_map(|(header, expected)| (sent(header).as_deref() != expected).then_some(header))
}

fn decoded(value: &str) -> String {
    let encoded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let decoded = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    decoded.unwrap_or_else(|| value.to_owned())
}

/// The HTTP status of a response.
pub(super) fn status(response: &[u8]) -> StatusCode {
    let response: Value = serde_json::from_slice(response).unwrap_or_default();
    match response["error"]["code"].as_i64() {
        Some(METHOD_NOT_FOUND) => StatusCode::NOT_FOUND,
        Some(UNSUPPORTED_VERSION | HEADER_MISMATCH) => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

/// Notes a notification.
pub(super) fn receive(listens: &Listens, message: &Value) {
    if message["method"] == "notifications/cancelled" {
        listens
            .open()
            .retain(|listen| listen.id != message["params"]["requestId"]);
    }
}

/// The answers of the client to the questions of a call. Without answers, the questions; `None` if
/// the call has no question.
pub(super) fn input(params: &Value) -> Option<Result<Vec<Value>, Value>> {
    let arguments = &params["arguments"];
    let question = match params["name"].as_str()? {
        "test_ask" => &arguments["question"],
        "test_stamp" if arguments["ask"] == json!(true) => &arguments["mark"],
        _other => return None,
    };
    let names: &[&str] = if arguments["twice"] == json!(true) {
        &["first", "second"]
    } else {
        &["first"]
    };
    let answers: Option<Vec<Value>> = names
        .iter()
        .map(|name| {
            params["inputResponses"]
                .get(name)
                .map(|answer| json!({ "result": answer }))
        })
        .collect();
    if let Some(answers) = answers.filter(|_| params["requestState"] == *question) {
        return Some(Ok(answers));
    }
    let schema = json!({ "type": "object", "properties": { "nonce": { "type": "string" } } });
    let input = json!({
        "method": "elicitation/create",
        "params": { "message": question, "requestedSchema": schema },
    });
    let inputs: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), input.clone())).collect();
    Some(Err(
        json!({ "resultType": "input_required", "inputRequests": inputs, "requestState": question }),
    ))
}

/// A result as this era has it.
pub(super) fn result(mut result: Value) -> Value {
    if result["resultType"].is_null() {
        result["resultType"] = json!("complete");
    }
    let lists = [
        "supportedVersions",
        "tools",
        "resources",
        "resourceTemplates",
        "contents",
    ];
    if lists.iter().any(|name| result.get(name).is_some()) {
        result["ttlMs"] = json!(0);
        result["cacheScope"] = json!("private");
    }
    result["_meta"][META_SERVER_INFO] = json!({ "name": "Forgejo MCP Server", "version": super::VERSION });
    result
}

/// Sends a notification on each `subscriptions/listen` that it is for.
pub(super) async fn announce(listens: &Listens, method: &str, params: &Value) {
    let listening = match method {
        "notifications/tools/list_changed" => listens.matching(|filter| filter["toolsListChanged"] == json!(true)),
        _updated => subscriptions(listens, &params["uri"]),
    };
    for Listen { id, stream, .. } in listening {
        let mut params = params.clone();
        params["_meta"] = json!({ META_SUBSCRIPTION: id });
        // Fails only after the reader has gone.
        let _ = stream.send(protocol::notification(method, &params).into()).await;
    }
}

/// The requests that subscribe to a resource.
pub(super) fn subscriptions(listens: &Listens, uri: &Value) -> Vec<Listen> {
    listens.matching(|filter| {
        let uris = filter["resourceSubscriptions"].as_array();
        uris.is_some_and(|uris| uris.contains(uri))
    })
}

/// True if a request asks for log messages of this level.
pub(super) fn wants_log(params: &Value, level: &str) -> bool {
    let rank = |level: &str| LEVELS.iter().position(|known| *known == level);
    let wanted = params["_meta"][META_LOG_LEVEL].as_str().and_then(rank);
    wanted.is_some_and(|wanted| rank(level) >= Some(wanted))
}
