//! An open MCP session and its calls.

use anyhow::{Context, Result};
use futures_util::future::join_all;
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient,
    service::RunningService,
    transport::{
        StreamableHttpClientTransport, auth::AuthClient, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};

use crate::{
    emit, feature_checks,
    host::{Host, ReceivedNotifications},
    settings::{Settings, fill_in, tool_params},
};

/// An open session.
pub(crate) struct Session {
    number: usize,
    client: RunningService<RoleClient, Host>,
    received: ReceivedNotifications,
}

/// Opens a session with an existing sign-in and emits its event.
pub(crate) async fn connect<H: ClientHandler>(
    number: usize,
    handler: H,
    http: AuthClient<reqwest::Client>,
    settings: &Settings,
) -> Result<RunningService<RoleClient, H>> {
    let config = StreamableHttpClientTransportConfig::with_uri(settings.url.clone());
    let transport = StreamableHttpClientTransport::with_client(http, config);
    let client = handler
        .serve_with_lifecycle(transport, settings.lifecycle.clone())
        .await?;
    let server = client.peer_info().context("an open session knows its server")?;
    let name = server.server_info.as_ref().map(|server| server.name.clone());
    emit(&json!({ "event": "session", "session": number, "protocol": server.protocol_version, "server": name }));
    Ok(client)
}

impl Session {
    /// Opens a session with an existing sign-in.
    pub(crate) async fn open(
        number: usize,
        host: Host,
        http: AuthClient<reqwest::Client>,
        settings: &Settings,
    ) -> Result<Self> {
        let received = host.received.clone();
        let client = connect(number, host, http, settings).await?;
        Ok(Self {
            number,
            client,
            received,
        })
    }

    /// Lists all tools.
    pub(crate) async fn list_tools(&self) -> Result<()> {
        let tools = self.client.list_all_tools().await?;
        emit(&json!({ "event": "tools", "session": self.number, "count": tools.len() }));
        Ok(())
    }

    /// Makes all feature checks, or all calls of a round.
    pub(crate) async fn round(&self, settings: &Settings) -> Result<()> {
        if !settings.feature_checks {
            return self.call_all(settings).await;
        }
        let is_stateless = !matches!(settings.lifecycle, ClientLifecycleMode::Initialize);
        feature_checks::run(&self.client, &self.received, is_stateless).await
    }

    /// Makes all calls of a round at once. In an interactive run a failed call is reported and the
    /// run continues.
    async fn call_all(&self, settings: &Settings) -> Result<()> {
        let calls = (0..settings.calls).map(|call| self.call(settings, call));
        for (call, outcome) in join_all(calls).await.into_iter().enumerate() {
            match outcome {
                Err(error) if settings.interactive => {
                    let message = format!("{error:#}");
                    emit(&json!({ "event": "error", "session": self.number, "call": call, "message": message }));
                }
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Closes the session, with a `DELETE` to the server.
    pub(crate) async fn close(self) -> Result<()> {
        self.client.cancel().await?;
        Ok(())
    }

    async fn call(&self, settings: &Settings, call: usize) -> Result<()> {
        let arguments = fill_in(&settings.arguments, self.number, call);
        let result = json!(self.client.call_tool(tool_params(&settings.tool, arguments)?).await?);
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
