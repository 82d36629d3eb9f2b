//! A tour of what a server and its client can do with each other: the same stops in the same order as in the other
//! languages, with a `feature` event after each. Whether what came of it is right is for the test to judge.

use std::time::Duration;

use anyhow::{Context, Result};
use rmcp::{
    RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, ClientRequest, LoggingLevel, SetLevelRequestParams,
        SubscribeRequestParams, UnsubscribeRequestParams,
    },
    service::{Peer, PeerRequestOptions},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    emit,
    host::{Heard, Kind, PATIENCE},
};

const WATCHED: &str = "test://watched-resource";

/// Takes the tour.
pub(crate) async fn take(peer: &Peer<RoleClient>, heard: &Heard) -> Result<()> {
    call(peer, "test_tool_with_progress", json!({})).await?;
    heard.until(Kind::Progress, 3).await?;
    feature("progress", json!(heard.of(Kind::Progress)));

    peer.set_level(SetLevelRequestParams::new(LoggingLevel::Debug)).await?;
    call(peer, "test_tool_with_logging", json!({})).await?;
    heard.until(Kind::Message, 3).await?;
    feature("logging", json!(heard.of(Kind::Message)));

    peer.set_level(SetLevelRequestParams::new(LoggingLevel::Error)).await?;
    call(peer, "test_tool_with_logging", json!({})).await?;
    call(peer, "change_tools", json!({})).await?;
    // What was sent before it would have come before it.
    heard.until(Kind::ListChanged, 1).await?;
    feature("list_changed", json!(heard.of(Kind::Message).len()));

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
    heard.until(Kind::Updated, 1).await?;
    peer.unsubscribe(UnsubscribeRequestParams::new(WATCHED)).await?;
    let after = call(peer, "update_resource", json!({ "uri": WATCHED })).await?;
    let mut updates = heard.of(Kind::Updated);
    updates.push(after);
    feature("subscription", json!(updates));

    feature("cancellation", cancel(peer, heard).await?);
    feature("resumption", call(peer, "test_reconnection", json!({})).await?);
    Ok(())
}

/// Cancels a call as soon as it has begun, and asks the server which calls were cancelled.
async fn cancel(peer: &Peer<RoleClient>, heard: &Heard) -> Result<Value> {
    let begun = heard.of(Kind::Progress).len() + 1;
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params("wait", json!({ "tag": "mine" }))?));
    let waiting = peer
        .send_cancellable_request(request, PeerRequestOptions::no_options())
        .await?;
    heard.until(Kind::Progress, begun).await?;
    waiting.cancel(Some("enough".to_owned())).await?;
    // The cancellation is a message of its own, which may come after the next call.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let cancelled = call(peer, "cancelled", json!({})).await?;
        if cancelled != "" || Instant::now() > deadline {
            return Ok(cancelled);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Calls a tool and gives the text of its result.
async fn call(peer: &Peer<RoleClient>, tool: &str, arguments: Value) -> Result<Value> {
    let result = json!(peer.call_tool(params(tool, arguments)?).await?);
    let text = &result["content"][0]["text"];
    Ok(text.clone())
}

fn params(tool: &str, arguments: Value) -> Result<CallToolRequestParams> {
    serde_json::from_value(json!({ "name": tool, "arguments": arguments })).context("these are parameters")
}

fn feature(name: &str, result: Value) {
    emit(&json!({ "event": "feature", "name": name, "result": result }));
}
