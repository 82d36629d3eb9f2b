//! One request: its dispatch to a method or a tool, and its answer.

use serde_json::{Value, json};

use super::{
    CallContext,
    api::Api,
    catalog, log,
    protocol::{self, INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Request, RpcError},
    test_tools,
};

impl CallContext {
    /// Answers a request; a tool call waits for a worker first, and is dropped if `workers` is
    /// closed.
    pub(super) async fn serve(&self, request: &Request) {
        if request.method != "tools/call" {
            return self.answer(&request.id, self.method(request)).await;
        }
        if let Ok(_worker) = self.workers.acquire().await {
            self.call(request).await;
        }
    }

    pub(super) async fn call(&self, Request { id, params, .. }: &Request) {
        let Some(name) = params["name"].as_str() else {
            let error = RpcError::new(INVALID_PARAMS, "a tool has a name");
            return self.answer(id, Err(error)).await;
        };
        log::info("tool call", &format!("tool={name} params={}", params["arguments"]));
        let test_tool = if self.options.test_tools {
            test_tools::call(self, name, params).await
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
        // Fails only after the reader has gone, which ends everything.
        let _ = self.stream.send(protocol::response(id, outcome)).await;
    }

    fn method(&self, Request { method, params, .. }: &Request) -> Result<Value, RpcError> {
        match method.as_str() {
            "initialize" => Ok(protocol::initialize(params)),
            "ping" | "logging/setLevel" => Ok(json!({})),
            "tools/list" if self.options.test_tools => Ok(catalog::tools(test_tools::listed())),
            "tools/list" => Ok(catalog::tools(Vec::new())),
            "resources/list" => Ok(json!({ "resources": [] })),
            "resources/templates/list" => Ok(catalog::templates()),
            "resources/read" => {
                let uri = params["uri"].as_str().unwrap_or_default();
                let message = format!("handler not found for resource URI '{uri}'");
                Err(RpcError::new(RESOURCE_NOT_FOUND, message))
            }
            _ => Err(RpcError::new(METHOD_NOT_FOUND, format!("Method {method} not found"))),
        }
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
