//! The double as a server that speaks only MCP 2026-07-28: requests say who sends them, questions
//! are answers, and notifications belong to a `subscriptions/listen`.
//!
//! A tool that asks answers its first request with the questions, and does its work with the second
//! one, which brings the answers. `test_received` shows the `_meta` of requests, too.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use super::{
    CallContext, log,
    protocol::{self, INVALID_PARAMS, METHOD_NOT_FOUND, Request, RpcError},
};

const VERSION: &str = "2026-07-28";
const UNSUPPORTED_VERSION: i64 = -32022;
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

/// The open `subscriptions/listen` requests: their ids and filters.
#[derive(Default)]
pub(super) struct Listens(Mutex<Vec<(Value, Value)>>);

impl Listens {
    /// The ids of the requests whose filter matches.
    fn ids(&self, matches: impl Fn(&Value) -> bool) -> Vec<Value> {
        let open = self.open();
        let matching = open.iter().filter(|(_, filter)| matches(filter));
        matching.map(|(id, _)| id.clone()).collect()
    }

    fn open(&self) -> MutexGuard<'_, Vec<(Value, Value)>> {
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
                listens.open().push((id.clone(), filter.clone()));
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

/// Notes a notification.
pub(super) fn receive(listens: &Listens, message: &Value) {
    if message["method"] == "notifications/cancelled" {
        listens.open().retain(|(id, _)| *id != message["params"]["requestId"]);
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
pub(super) async fn announce(context: &CallContext, listens: &Listens, method: &str, params: &Value) {
    let ids = match method {
        "notifications/tools/list_changed" => listens.ids(|filter| filter["toolsListChanged"] == json!(true)),
        _updated => subscriptions(listens, &params["uri"]),
    };
    for id in ids {
        let mut params = params.clone();
        params["_meta"] = json!({ META_SUBSCRIPTION: id });
        context.send(protocol::notification(method, &params)).await;
    }
}

/// The requests that subscribe to a resource.
pub(super) fn subscriptions(listens: &Listens, uri: &Value) -> Vec<Value> {
    listens.ids(|filter| {
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
