//! A stdio MCP server with the fixtures of the official conformance suite, on the crate `rmcp`.
//!
//! The suite prescribes each tool, prompt and resource of its server scenarios by name and answer;
//! this server has all of them, in the protocol of 2025-11-25. A few tools of our own (`roots`,
//! `update_resource`, `change_tools`, `wait`, `cancelled`) let client SDKs use the features that
//! the suite has no scenario for.
//!
//! Tools run at the same time, and requests to the client carry small numbers as ids, which a
//! client probably uses for its own requests too: a bridge that confuses the two directions fails.
//! A cancelled call is never answered.
//!
//! Left out: pages, tasks, and every transport but stdio.
#![expect(
    deprecated,
    reason = "2026-07-28 deprecates logging, sampling, roots and subscriptions; clients of today use them"
)]

mod prompts;
mod resources;
#[cfg(test)]
mod tests;
mod tools;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    handler::server::{router::prompt::PromptRouter, router::tool::ToolRouter, tool::ToolCallContext},
    model::{
        CallToolRequestParams, CallToolResponse, CompleteRequestParams, CompleteResult, Implementation,
        ListResourceTemplatesResult, ListResourcesResult, LoggingLevel, PaginatedRequestParams, ProtocolVersion,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, SetLevelRequestParams,
        SubscribeRequestParams, UnsubscribeRequestParams,
    },
    prompt_handler,
    service::RequestContext,
    tool_handler,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime,
};

const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==";

struct ConformanceServer {
    tools: ToolRouter<Self>,
    prompts: PromptRouter<Self>,
    /// Every change is one operation, so a poisoned lock is still consistent; never held across an
    /// await.
    state: Arc<Mutex<ClientState>>,
}

struct ClientState {
    level: LoggingLevel,
    subscriptions: BTreeSet<String>,
    cancelled: Vec<String>,
}

pub fn main() -> ExitCode {
    let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else {
        return ExitCode::FAILURE;
    };
    runtime.block_on(serve(tokio::io::stdin(), tokio::io::stdout()));
    // A thread of the runtime may be reading stdin; waiting for it would mean waiting for the
    // parent.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

/// Serves until the input ends; calls in flight then have a few more seconds.
async fn serve(stdin: impl AsyncRead + Send + Unpin + 'static, stdout: impl AsyncWrite + Send + Unpin + 'static) {
    let server = ConformanceServer {
        tools: ConformanceServer::tool_router(),
        prompts: ConformanceServer::prompt_router(),
        state: Arc::new(Mutex::new(ClientState {
            level: LoggingLevel::Debug,
            subscriptions: BTreeSet::new(),
            cancelled: Vec::new(),
        })),
    };
    // A client that goes away during the handshake is no failure.
    if let Ok(service) = server.serve((stdin, stdout)).await {
        let _ = service.waiting().await;
    }
}

impl ConformanceServer {
    fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tool_handler(router = self.tools)]
#[prompt_handler(router = self.prompts)]
impl ServerHandler for ConformanceServer {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        let implementation = Implementation::new("conformance", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(capabilities).with_server_info(implementation)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25))
    }

    /// Runs a tool, and drops it when the client cancels the call.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let cancelled = context.ct.clone();
        let tag = request.arguments.as_ref().and_then(|arguments| arguments.get("tag"));
        let tag = tag.and_then(|tag| tag.as_str()).unwrap_or_default().to_owned();
        tokio::select! {
            result = self.tools.call(ToolCallContext::new(self, request, context)) => result,
            () = cancelled.cancelled() => {
                self.state().cancelled.push(tag);
                // rmcp does not send the answer to a cancelled call.
                Err(ErrorData::internal_error("cancelled", None))
            }
        }
    }

    async fn set_level(&self, request: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.state().level = request.level;
        Ok(())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(resources::list())
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(resources::templates())
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&request.uri).map(Into::into)
    }

    async fn subscribe(&self, request: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.state().subscriptions.insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.state().subscriptions.remove(&request.uri);
        Ok(())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        prompts::complete(&request.argument.value)
    }
}
