//! Checks of the features that involve both a server and its client, in the same order as in the
//! other languages. Each ends with a `feature` event, and the test compares its result.

use std::time::Duration;

use anyhow::Result;
use rmcp::{
    RoleClient,
    model::{
        CallToolRequest, ClientRequest, LoggingLevel, SetLevelRequestParams, SubscribeRequestParams,
        UnsubscribeRequestParams,
    },
    service::{Peer, PeerRequestOptions},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    emit,
    host::{ARRIVAL_TIMEOUT, NotificationKind, ReceivedNotifications},
    settings::tool_params,
};

const WATCHED: &str = "test://watched-resource";

/// Makes all checks in one session.
pub(crate) async fn run(peer: &Peer<RoleClient>, received: &ReceivedNotifications) -> Result<()> {
    call(peer, "test_tool_with_progress", json!({})).await?;
    received.until(NotificationKind::Progress, 3).await?;
    feature("progress", json!(received.of_kind(NotificationKind::Progress)));

    peer.set_level(SetLevelRequestParams::new(LoggingLevel::Debug)).await?;
    call(peer, "test_tool_with_logging", json!({})).await?;
    received.until(NotificationKind::Message, 3).await?;
    feature("logging", json!(received.of_kind(NotificationKind::Message)));

    peer.set_level(SetLevelRequestParams::new(LoggingLevel::Error)).await?;
    call(peer, "test_tool_with_logging", json!({})).await?;
    call(peer, "test_trigger_tool_change", json!({})).await?;
    // Notifications arrive in order: all earlier messages have arrived with this one.
    received.until(NotificationKind::ListChanged, 1).await?;
    feature("list_changed", json!(received.of_kind(NotificationKind::Message).len()));

    feature(
        "sampling",
        call(peer, "test_sampling", json!({ "prompt": "hello" })).await?,
    );
    feature(
        "elicitation",
        call(peer, "test_elicitation", json!({ "message": "who?" })).await?,
    );
    feature("roots", call(peer, "roots", json!({})).await?);

    peer.subscribe(SubscribeRequestParams::new(WATCHED)).await?;
    call(peer, "update_resource", json!({ "uri": WATCHED })).await?;
    received.until(NotificationKind::Updated, 1).await?;
    peer.unsubscribe(UnsubscribeRequestParams::new(WATCHED)).await?;
    let text_without_subscription = call(peer, "update_resource", json!({ "uri": WATCHED })).await?;
    let mut updates = received.of_kind(NotificationKind::Updated);
    updates.push(text_without_subscription);
    feature("subscription", json!(updates));

    feature("cancellation", cancel(peer, received).await?);
    feature("resumption", call(peer, "test_reconnection", json!({})).await?);
    Ok(())
}

/// Cancels a call as soon as it has started, and asks the server for the cancelled calls.
async fn cancel(peer: &Peer<RoleClient>, received: &ReceivedNotifications) -> Result<Value> {
    let progress_count = received.of_kind(NotificationKind::Progress).len() + 1;
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(tool_params("wait", json!({ "tag": "mine" }))?));
    let running = peer
        .send_cancellable_request(request, PeerRequestOptions::no_options())
        .await?;
    received.until(NotificationKind::Progress, progress_count).await?;
    running.cancel(Some("enough".to_owned())).await?;
    // The cancellation is a separate message, which may arrive after the next call.
    let deadline = Instant::now() + ARRIVAL_TIMEOUT;
    loop {
        let cancelled = call(peer, "cancelled", json!({})).await?;
        if cancelled != "" || Instant::now() > deadline {
            return Ok(cancelled);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Calls a tool and returns the text of its result.
async fn call(peer: &Peer<RoleClient>, tool: &str, arguments: Value) -> Result<Value> {
    let result = json!(peer.call_tool(tool_params(tool, arguments)?).await?);
    let text = &result["content"][0]["text"];
    Ok(text.clone())
}

fn feature(name: &str, result: Value) {
    emit(&json!({ "event": "feature", "name": name, "result": result }));
}
