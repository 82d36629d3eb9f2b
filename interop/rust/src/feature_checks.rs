//! Checks of the features that involve both a server and its client, in the same order as in the
//! other languages. Each ends with a `feature` event, and the test compares its result.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rmcp::{
    RoleClient,
    model::{
        CallToolRequest, ClientRequest, LoggingLevel, RequestMetaObject, SetLevelRequestParams, SubscribeRequestParams,
        SubscriptionFilter, UnsubscribeRequestParams,
    },
    service::{PeerRequestOptions, RunningService, Subscription},
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    emit,
    host::{ARRIVAL_TIMEOUT, Host, NotificationKind, ReceivedNotifications},
    settings::tool_params,
};

const WATCHED: &str = "test://watched-resource";

type Client = RunningService<RoleClient, Host>;

/// Makes all checks in one session.
///
/// From 2026-07-28 on (`is_stateless`) there are no sessions: a request names its log level, and a
/// stream of its own carries what a client has subscribed to.
pub(crate) async fn run(peer: &Client, received: &ReceivedNotifications, is_stateless: bool) -> Result<()> {
    received.clear();
    call(peer, "test_tool_with_progress", json!({})).await?;
    received.until(NotificationKind::Progress, 3).await?;
    feature("progress", json!(received.of_kind(NotificationKind::Progress)));

    call_at_level(peer, LoggingLevel::Debug, is_stateless).await?;
    received.until(NotificationKind::Message, 3).await?;
    feature("logging", json!(received.of_kind(NotificationKind::Message)));

    call_at_level(peer, LoggingLevel::Error, is_stateless).await?;
    let changes = SubscriptionFilter::builder().tools_list_changed().build();
    if is_stateless {
        let mut changes = peer.listen(changes).await?;
        call(peer, "test_trigger_tool_change", json!({})).await?;
        next_notification(&mut changes).await?;
        changes.cancel().await?;
    } else {
        call(peer, "test_trigger_tool_change", json!({})).await?;
        // Notifications arrive in order: all earlier messages have arrived with this one.
        received.until(NotificationKind::ListChanged, 1).await?;
    }
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

    let rounds = call(peer, "test_input_required_result_multi_round", json!({})).await?;
    feature("rounds", rounds);

    let update = || call(peer, "update_resource", json!({ "uri": WATCHED }));
    let mut updates = if is_stateless {
        let filter = SubscriptionFilter::builder().resource_subscriptions([WATCHED]).build();
        let mut subscription = peer.listen(filter).await?;
        update().await?;
        let updated = next_notification(&mut subscription).await?;
        subscription.cancel().await?;
        vec![updated["params"]["uri"].clone()]
    } else {
        peer.subscribe(SubscribeRequestParams::new(WATCHED)).await?;
        update().await?;
        received.until(NotificationKind::Updated, 1).await?;
        peer.unsubscribe(UnsubscribeRequestParams::new(WATCHED)).await?;
        received.of_kind(NotificationKind::Updated)
    };
    // The end of a stream is not answered: the server may learn of it after the next call.
    updates.push(poll(update, |text| text != "sent").await?);
    feature("subscription", json!(updates));

    feature("cancellation", cancel(peer, received).await?);
    if !is_stateless {
        feature("resumption", call(peer, "test_reconnection", json!({})).await?);
    }
    Ok(())
}

/// Cancels a call as soon as it has started, and asks the server for the cancelled calls.
async fn cancel(peer: &Client, received: &ReceivedNotifications) -> Result<Value> {
    let progress_count = received.of_kind(NotificationKind::Progress).len() + 1;
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(tool_params("wait", json!({ "tag": "mine" }))?));
    let running = peer
        .send_cancellable_request(request, PeerRequestOptions::no_options())
        .await?;
    received.until(NotificationKind::Progress, progress_count).await?;
    running.cancel(Some("enough".to_owned())).await?;
    // The cancellation is a separate message, which may arrive after the next call.
    poll(|| call(peer, "cancelled", json!({})), |tags| tags != "").await
}

/// Calls until the result is as wanted, or the time is over. Returns the last result.
async fn poll<F: Future<Output = Result<Value>>>(call: impl Fn() -> F, is_wanted: fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + ARRIVAL_TIMEOUT;
    loop {
        let result = call().await?;
        if is_wanted(&result) || Instant::now() > deadline {
            return Ok(result);
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn next_notification(subscription: &mut Subscription) -> Result<Value> {
    let notification = timeout(ARRIVAL_TIMEOUT, subscription.next()).await??;
    Ok(json!(notification.context("the subscription has ended")?))
}

/// Calls a tool that logs.
async fn call_at_level(peer: &Client, level: LoggingLevel, is_stateless: bool) -> Result<()> {
    let mut params = tool_params("test_tool_with_logging", json!({}))?;
    if is_stateless {
        let mut meta = RequestMetaObject::default();
        meta.set_log_level(level);
        params.meta = Some(meta);
    } else {
        peer.set_level(SetLevelRequestParams::new(level)).await?;
    }
    peer.call_tool(params).await?;
    Ok(())
}

/// Calls a tool and returns the text of its result.
async fn call(peer: &Client, tool: &str, arguments: Value) -> Result<Value> {
    let result = json!(peer.call_tool(tool_params(tool, arguments)?).await?);
    let text = &result["content"][0]["text"];
    Ok(text.clone())
}

fn feature(name: &str, result: Value) {
    emit(&json!({ "event": "feature", "name": name, "result": result }));
}
