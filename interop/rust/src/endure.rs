//! Calls without end, while the server has a hard time: one at a time in each session until an order comes, a `call` event for
//! each, and a `heard` event for what the server says beside its answers. As in the other languages; what may fail is for the
//! test to judge.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result};
use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{CallToolRequestParams, LoggingMessageNotificationParam},
    service::{NotificationContext, RunningService},
    transport::{
        StreamableHttpClientTransport, auth::AuthClient, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    emit,
    settings::{Orders, Settings},
};

/// How long the last message of the server may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that tells of what it hears.
#[derive(Debug)]
struct Ear {
    name: String,
    latest: watch::Sender<Value>,
}

/// A session that makes calls.
struct Endurance {
    name: String,
    latest: watch::Receiver<Value>,
    client: RunningService<RoleClient, Ear>,
}

/// Opens the sessions with one sign-in, and has them make calls until the next order. Their marks begin with `name`.
pub(crate) async fn run(
    http: AuthClient<reqwest::Client>,
    name: &str,
    settings: &Settings,
    orders: &mut Orders,
) -> Result<()> {
    let mut open = Vec::new();
    for number in 0..settings.sessions {
        let name = format!("{name}-{number}");
        let latest = watch::Sender::new(Value::Null);
        let heard = latest.subscribe();
        let config = StreamableHttpClientTransportConfig::with_uri(settings.url.clone());
        let transport = StreamableHttpClientTransport::with_client(http.clone(), config);
        let ear = Ear {
            name: name.clone(),
            latest,
        };
        let client = ear.serve(transport).await?;
        let version = client.peer_info().map(|server| server.protocol_version.clone());
        emit(&json!({ "event": "session", "session": number, "protocol": version, "server": null }));
        open.push(Endurance {
            name,
            latest: heard,
            client,
        });
    }
    emit(&json!({ "event": "ready" }));
    let over = watch::Sender::new(false);
    let mut calling = JoinSet::new();
    for session in open {
        calling.spawn(session.call_until(over.subscribe()));
    }
    // The end of the orders is one too.
    orders.next().await?;
    over.send_replace(true);
    while let Some(session) = calling.join_next().await {
        session??;
    }
    Ok(())
}

impl Endurance {
    async fn call_until(mut self, over: watch::Receiver<bool>) -> Result<()> {
        let mut turn = 0;
        while !*over.borrow() {
            // Uneven, so that sessions do not stay in step.
            sleep(Duration::from_millis(20 + turn * 37 % 100)).await;
            self.call(turn).await?;
            turn += 1;
        }
        // Now that all is quiet: what the server says arrives.
        let mark = json!(self.call(turn).await?);
        // What has not come is missed by the test.
        let _ = timeout(PATIENCE, self.latest.wait_for(|latest| *latest == mark)).await;
        self.client.cancel().await?;
        Ok(())
    }

    async fn call(&self, turn: u64) -> Result<String> {
        let mark = format!("{}.{turn}", self.name);
        let wait = if turn.is_multiple_of(2) { turn * 13 % 60 } else { 0 };
        let arguments = json!({ "mark": mark, "whose": true, "announce": true, "ms": wait });
        let params: CallToolRequestParams =
            serde_json::from_value(json!({ "name": "test_stamp", "arguments": arguments }))
                .context("these are parameters")?;
        let began = milliseconds();
        let result = self.client.call_tool(params).await;
        let mut event = json!({
            "event": "call", "session": self.name, "mark": mark, "began": began, "ended": milliseconds() + 1,
        });
        match result {
            Ok(result) => event["text"] = json!(result)["content"][0]["text"].clone(),
            Err(error) => event["failed"] = json!(error.to_string()),
        }
        emit(&event);
        Ok(mark)
    }
}

impl ClientHandler for Ear {
    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        emit(&json!({ "event": "heard", "session": self.name, "data": params.data }));
        self.latest.send_replace(params.data["mark"].clone());
    }
}

/// The time of day.
fn milliseconds() -> u64 {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}
