//! One request: its dispatch to a method or a tool, and its answer.

use serde_json::{Value, json};

use super::{
    catalog,
    context::CallContext,
    log,
    protocol::{self, INVALID_PARAMS, METHOD_NOT_FOUND, RESOURCE_NOT_FOUND, Request, RpcError},
    test_tools, tools,
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
            None => tools::call(&self.api, name, &params["arguments"]).await,
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
