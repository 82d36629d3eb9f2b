//! One request: its dispatch to a method or a tool, and its answer.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    CallContext, Line,
    api::Api,
    catalog, log, misbehavior, modern,
    protocol::{self, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Request, RpcError},
    test_tools,
};

impl CallContext {
    /// Answers a request; a tool call waits for a worker first, and is dropped if `workers` is
    /// closed.
    pub(super) async fn serve(&self, request: &Request) {
        if request.method == "tools/call" {
            if let Ok(_worker) = self.workers.acquire().await {
                self.call(request).await;
            }
            return;
        }
        if self.options.test_tools {
            let Request { id, method, params } = request;
            self.inbox.add(&json!({ "id": id, "method": method, "params": params }));
        }
        if let Some(listens) = &self.listens
            && modern::serve(self, listens, request).await
        {
            return;
        }
        if !self.options.script.never_answers.contains(&request.method) {
            self.answer(&request.id, self.method(request).await).await;
        }
    }

    pub(super) async fn call(&self, request: &Request) {
        let Request { id, params, .. } = request;
        let mut answering = self.clone();
        if let Some(listens) = &self.listens {
            if modern::serve(self, listens, request).await {
                return;
            }
            match modern::input(params) {
                Some(Err(questions)) => return self.answer(id, Ok(questions)).await,
                Some(Ok(answers)) => answering.answers = Some(answers),
                None => {}
            }
        }
        let Some(name) = params["name"].as_str() else {
            let error = RpcError::new(INVALID_PARAMS, "a tool has a name");
            return self.answer(id, Err(error)).await;
        };
        log::info("tool call", &format!("tool={name} params={}", params["arguments"]));
        if self.options.script.never_answers.iter().any(|tool| tool == name) {
            return;
        }
        if self.options.test_tools && misbehavior::call(&answering, request).await {
            return;
        }
        let test_tool = if self.options.test_tools {
            test_tools::call(&answering, name, params).await
        } else {
            None
        };
        let outcome = match test_tool {
            Some(outcome) => outcome,
            None => call_tool(&self.api, name, &params["arguments"]).await,
        };
        if let Err(RpcError { message, .. }) = &outcome {
            log::error("tool call failed", message);
        }
        self.answer(id, outcome).await;
    }

    pub(super) async fn answer(&self, id: &Value, outcome: Result<Value, RpcError>) {
        let outcome = if self.listens.is_some() {
            outcome.map(modern::result)
        } else {
            outcome
        };
        self.send(protocol::response(id, outcome)).await;
    }

    /// Sends a notification outside of any request, to the clients that want it.
    pub(super) async fn announce(&self, method: &str, params: &Value) {
        match &self.listens {
            Some(listens) => modern::announce(listens, method, params).await,
            // Fails only after the reader has gone, which ends everything.
            None => _ = self.listener.send(protocol::notification(method, params).into()).await,
        }
    }

    /// True if the client wants to know about changes of a resource.
    pub(super) fn is_subscribed(&self, uri: &str) -> bool {
        match &self.listens {
            Some(listens) => !modern::subscriptions(listens, &json!(uri)).is_empty(),
            None => self.inbox.is_subscribed(uri),
        }
    }

    /// Sends a message on the stream of the request.
    pub(super) async fn send(&self, message: impl Into<Line>) {
        // Fails only after the reader has gone, which ends everything.
        let _ = self.stream.send(message.into()).await;
    }

    async fn method(&self, Request { method, params, .. }: &Request) -> Result<Value, RpcError> {
        let uri = || params["uri"].as_str().unwrap_or_default();
        match method.as_str() {
            "initialize" => protocol::initialize(params, &self.options),
            "ping" | "logging/setLevel" => Ok(json!({})),
            "tools/list" => Ok(catalog::tools(self.more_tools())),
            "resources/subscribe" if self.options.test_tools => {
                sleep(Duration::from_millis(self.options.script.subscribe_ms)).await;
                self.inbox.subscribe(uri());
                Ok(json!({}))
            }
            "resources/unsubscribe" if self.options.test_tools => {
                self.inbox.unsubscribe(uri());
                Ok(json!({}))
            }
            "resources/list" => Ok(json!({ "resources": [] })),
            "resources/templates/list" => Ok(catalog::templates()),
            "resources/read" => {
                let uri = uri();
                let message = format!("handler not found for resource URI '{uri}'");
                Err(RpcError::new(RESOURCE_NOT_FOUND, message))
            }
            _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("Method {method} not found"))),
        }
    }
}

impl CallContext {
    /// The tools beyond those of the original.
    fn more_tools(&self) -> Vec<Value> {
        let mut tools = Vec::new();
        if self.options.test_tools {
            tools.extend(test_tools::listed());
            tools.extend(misbehavior::listed());
        }
        let scripted = self.options.script.more_tools.iter();
        tools.extend(scripted.map(|name| catalog::tool(name, "Does nothing", &json!({}), &[])));
        tools
    }
}

async fn call_tool(api: &Api, name: &str, arguments: &Value) -> Result<Value, RpcError> {
    let result = match name {
        "get_my_user_info" => {
            let user = api.user().await;
            user.map_err(|error| format!("get user info err: {error}"))
        }
        "list_my_repos" => {
            let number = |key: &str, default| arguments[key].as_u64().unwrap_or(default);
            let (page, limit) = (number("page", 1), number("limit", 100));
            let list = api.get(&format!("/api/v1/user/repos?page={page}&limit={limit}")).await;
            list.map_err(|error| format!("list my repositories err: {error}"))
        }
        "get_forgejo_mcp_server_version" => Ok(json!({ "version": super::VERSION })),
        _ if catalog::is_listed(name) => Err(format!("{name} does nothing in this double")),
        _ => {
            let message = format!("tool '{name}' not found: tool not found");
            return Err(RpcError::new(INVALID_PARAMS, message));
        }
    };
    let result = result.map_err(|message| RpcError::new(INTERNAL_ERROR, message))?;
    Ok(protocol::text(result.to_string()))
}
