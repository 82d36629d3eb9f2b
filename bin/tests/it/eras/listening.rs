//! `subscriptions/listen`: what servers announce, on streams that outlive their children.

use serde_json::{Value, json};
use testkit::client::{EventStream, ModernClient};

use super::{with_every_feature, with_forms};
use crate::{
    conversation::{CHILD_STARTED, IDLE, kill_child, next_event, next_message, rotate},
    harness::{Harness, SHORT_IDLE_TIMEOUT},
};

const URI: &str = "test://a";
const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// An open stream and the id of its request.
struct Listening {
    stream: EventStream,
    id: Value,
}

impl Listening {
    /// Opens a stream. Its first message has to acknowledge exactly this much of the filter.
    async fn open(client: &ModernClient, filter: Value, acknowledged: &Value) -> Self {
        let message = client.message("subscriptions/listen", json!({ "notifications": filter }));
        let stream = client.stream(&message).await.unwrap();
        let id = message["id"].clone();
        let mut listening = Self { stream, id };
        let first = listening.next("notifications/subscriptions/acknowledged").await;
        assert_eq!(&first["notifications"], acknowledged);
        listening
    }

    async fn to_tools(client: &ModernClient) -> Self {
        let filter = json!({ "toolsListChanged": true });
        Self::open(client, filter.clone(), &filter).await
    }

    async fn to_resource(client: &ModernClient, uri: &str) -> Self {
        let filter = json!({ "resourceSubscriptions": [uri] });
        Self::open(client, filter.clone(), &filter).await
    }

    /// The parameters of the next message, which must be this notification.
    async fn next(&mut self, method: &str) -> Value {
        let mut message = next_message(&mut self.stream).await;
        assert_eq!(message["method"], method, "{message}");
        assert_eq!(message["params"]["_meta"][SUBSCRIPTION_ID], self.id, "{message}");
        message["params"].take()
    }
}

/// Lets the child update a resource. True if it has a subscription to it.
async fn update(client: &ModernClient, uri: &str) -> bool {
    let reply = client.call_tool("test_update", json!({ "uri": uri })).await.unwrap();
    reply.json()["subscribed"] == true
}

/// The number of requests of this method that children have got.
fn received(harness: &Harness, method: &str) -> usize {
    // The log quotes the last lines of a child that has died.
    harness.broker.log().count(&format!("\"message\":\"got {method} "))
}

async fn announce(client: &ModernClient) {
    client.call_tool("test_announce", json!({})).await.unwrap().text();
}

#[tokio::test]
async fn changes_of_lists_reach_the_streams_that_asked_for_them() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let everything = json!({ "toolsListChanged": true, "promptsListChanged": true, "later": 1 });
    let acknowledged = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let mut both = Listening::open(&alice, everything, &acknowledged).await;
    let mut tools = Listening::to_tools(&alice).await;
    for tool in ["test_trigger_prompt_change", "test_trigger_tool_change"] {
        alice.call_tool(tool, json!({})).await.unwrap().text();
    }
    both.next("notifications/prompts/list_changed").await;
    both.next("notifications/tools/list_changed").await;
    tools.next("notifications/tools/list_changed").await;
    let wrong = alice
        .request("subscriptions/listen", json!({ "notifications": [] }))
        .await
        .unwrap();
    assert_eq!(wrong.error(), (400, -32602));
}

#[tokio::test]
async fn filter_is_cut_to_what_the_server_announces() {
    let (_harness, alice) = with_forms(&[]).await;
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
    Listening::open(&alice, wanted, &json!({ "toolsListChanged": true })).await;
}

#[tokio::test]
async fn resource_is_subscribed_to_while_any_stream_wants_it() {
    let (harness, alice) = with_forms(&[]).await;
    let mut first = Listening::to_resource(&alice, URI).await;
    let mut second = Listening::to_resource(&alice, URI).await;
    assert!(update(&alice, URI).await && !update(&alice, "test://b").await);
    for listening in [&mut first, &mut second] {
        assert_eq!(listening.next("notifications/resources/updated").await["uri"], URI);
    }
    drop(first);
    assert!(update(&alice, URI).await);
    second.next("notifications/resources/updated").await;
    drop(second);
    harness.broker.log().contains("got resources/unsubscribe").await;
    assert!(!update(&alice, URI).await);
    assert_eq!(received(&harness, "resources/subscribe"), 1);
    assert_eq!(received(&harness, "resources/unsubscribe"), 1);
}

#[tokio::test]
async fn subscriptions_are_renewed_at_the_next_child() {
    let (harness, alice) = with_forms(&[]).await;
    let mut resource = Listening::to_resource(&alice, URI).await;
    let mut tools = Listening::to_tools(&alice).await;
    assert!(update(&alice, URI).await);
    resource.next("notifications/resources/updated").await;
    rotate(&harness, "alice").await;
    assert!(update(&alice, URI).await);
    resource.next("notifications/resources/updated").await;
    kill_child(&harness).await;
    announce(&alice).await;
    tools.next("notifications/tools/list_changed").await;
    assert!(update(&alice, URI).await);
    resource.next("notifications/resources/updated").await;
    assert_eq!(received(&harness, "resources/subscribe"), 3);
}

#[tokio::test]
async fn listening_wakes_no_child_and_goes_on_when_one_wakes() {
    let (mut harness, alice) = with_forms(&SHORT_IDLE_TIMEOUT).await;
    announce(&alice).await;
    harness.broker.log().contains(IDLE).await;
    harness.wait_for_children(0).await;
    let mut resource = Listening::to_resource(&alice, URI).await;
    harness.in_session("bob").await;
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2, "alice's has started once");
    assert!(update(&alice, URI).await);
    resource.next("notifications/resources/updated").await;
    drop(resource);
    harness.restart().await;
    Listening::to_resource(&alice, URI).await;
    harness.in_session("bob").await;
    assert_eq!(
        harness.broker.log().count(CHILD_STARTED),
        4,
        "alice's has started twice"
    );
}

#[tokio::test]
async fn stop_of_the_broker_ends_streams_with_their_result() {
    let (mut harness, alice) = with_forms(&[]).await;
    let mut listening = Listening::to_resource(&alice, URI).await;
    assert!(update(&alice, URI).await);
    listening.next("notifications/resources/updated").await;
    harness.broker.terminate().await.unwrap();
    let result = next_message(&mut listening.stream).await;
    assert_eq!(
        (&result["id"], &result["result"]["resultType"]),
        (&listening.id, &json!("complete"))
    );
    assert_eq!(result["result"]["_meta"][SUBSCRIPTION_ID], listening.id);
    assert_eq!(next_event(&mut listening.stream).await, None);
    // The streams are gone, so nothing is subscribed to any more.
    harness.broker.start_again().await.unwrap();
    assert!(!update(&alice, URI).await);
}

#[tokio::test]
async fn grants_hear_only_of_their_own_server() {
    let (harness, alice) = with_forms(&[]).await;
    let bob = harness.signed_in("bob").await.modern();
    let mut of_bob = Listening::to_tools(&bob).await;
    announce(&alice).await;
    let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": [URI] });
    let mut of_alice = Listening::open(&alice, filter.clone(), &filter).await;
    assert!(update(&alice, URI).await);
    of_alice.next("notifications/resources/updated").await;
    assert!(!update(&bob, URI).await);
    announce(&bob).await;
    of_bob.next("notifications/tools/list_changed").await;
    announce(&alice).await;
    of_alice.next("notifications/tools/list_changed").await;
    announce(&bob).await;
    of_bob.next("notifications/tools/list_changed").await;
}
