//! One open MCP session, and what is done in it.

use anyhow::{Context, Result};
use futures::future::join_all;
use rmcp::{
    RoleClient, ServiceExt,
    model::CallToolRequestParams,
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, auth::AuthClient, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};

use crate::{
    emit,
    host::{Heard, Host},
    settings::{Settings, fill_in},
    tour,
};

/// A session that is open.
pub(crate) struct Session {
    number: usize,
    client: RunningService<RoleClient, Host>,
    heard: Heard,
}

impl Session {
    /// Opens a session with a sign-in that is there.
    pub(crate) async fn open(number: usize, http: AuthClient<reqwest::Client>, url: &str) -> Result<Self> {
        let config = StreamableHttpClientTransportConfig::with_uri(url.to_owned());
        let host = Host::default();
        let heard = host.heard.clone();
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let client = host.serve(transport).await?;
        let server = client.peer_info().context("an open session has a server")?;
        let name = server.server_info.as_ref().map(|server| server.name.clone());
        emit(&json!({ "event": "session", "session": number, "protocol": server.protocol_version, "server": name }));
        Ok(Self { number, client, heard })
    }

    /// Lists all tools.
    pub(crate) async fn list_tools(&self) -> Result<()> {
        let tools = self.client.list_all_tools().await?;
        emit(&json!({ "event": "tools", "session": self.number, "count": tools.len() }));
        Ok(())
    }

    /// Takes the tour of all features.
    pub(crate) async fn take_tour(&self) -> Result<()> {
        tour::take(&self.client, &self.heard).await
    }

    /// Makes all calls of a round at once. With `hold` one that fails is told, and the run goes on.
    pub(crate) async fn call_all(&self, settings: &Settings) -> Result<()> {
        let calls = (0..settings.calls).map(|call| self.call(settings, call));
        for (call, outcome) in join_all(calls).await.into_iter().enumerate() {
            match outcome {
                Err(error) if settings.hold => {
                    let message = format!("{error:#}");
                    emit(&json!({ "event": "error", "session": self.number, "call": call, "message": message }));
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Closes the session, which tells the server.
    pub(crate) async fn close(self) -> Result<()> {
        self.client.cancel().await?;
        Ok(())
    }

    async fn call(&self, settings: &Settings, call: usize) -> Result<()> {
        let arguments = fill_in(&settings.arguments, self.number, call);
        let params: CallToolRequestParams =
            serde_json::from_value(json!({ "name": settings.tool, "arguments": arguments }))?;
        let result = json!(self.client.call_tool(params).await?);
        let contents = result["content"].as_array().into_iter().flatten();
        let text = contents.into_iter().find(|content| content["type"] == "text");
        emit(&json!({
            "event": "result",
            "session": self.number,
            "call": call,
            "text": text.map_or(&Value::Null, |content| &content["text"]),
            "isError": result["isError"].as_bool().unwrap_or(false),
        }));
        Ok(())
    }
}
