//! Event streams that break and are resumed, and notifications of the server, through the whole
//! broker.

use serde_json::{Value, json};
use testkit::{
    Client,
    broker::{ChildCommand, programs},
    client::{Event, EventStream},
};
use tokio::time::timeout;

use crate::harness::{Harness, WAIT_LIMIT, open_session, sign_in};

/// The tool whose response the forwarder cuts.
const RECONNECTION: &str = "test_reconnection";
const RESOURCE: &str = "test://watched-resource";

fn conformance_server() -> ChildCommand {
    ChildCommand::plain(&programs().conformance_mcp)
}

/// The next event that carries a message, with the message.
async fn next_message(stream: &mut EventStream) -> (Event, Value) {
    loop {
        let event = timeout(WAIT_LIMIT, stream.next())
            .await
            .expect("an event arrives")
            .unwrap()
            .expect("the stream goes on");
        if !event.data.is_empty() {
            let message = serde_json::from_str(&event.data).unwrap();
            return (event, message);
        }
    }
}

/// Checks that the stream ends without another event.
async fn assert_end(mut stream: EventStream) {
    let rest = timeout(WAIT_LIMIT, stream.next())
        .await
        .expect("the stream ends")
        .unwrap();
    assert_eq!(rest, None);
}

/// Makes the server notify that the resource has changed.
async fn update_resource(client: &Client) {
    let params = json!({ "name": "update_resource", "arguments": { "uri": RESOURCE } });
    let (answer, id) = client.request("tools/call", params).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "the notification is on another stream");
    let answer = answer.response_to(&id).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "sent");
}

#[tokio::test]
async fn response_is_kept_for_a_client_whose_stream_broke() {
    let (_harness, forwarder) = Harness::behind_forwarder(conformance_server(), RECONNECTION).await;
    let client = Client::new(forwarder.mcp_url().parse().unwrap());
    sign_in(&client, "alice").await;
    open_session(&client).await;

    let params = json!({ "name": RECONNECTION, "arguments": {} });
    let (cut, id) = client.request("tools/call", params).await.unwrap();
    let events = cut.events();
    assert_eq!((events.len(), forwarder.cuts()), (1, 1));
    assert_eq!(events[0].data, "", "a stream begins with an empty event that has an id");
    assert!(events[0].retry.is_some());
    let event_id = events[0].id.as_deref().unwrap();

    // The first resumption is during the call, the second after its response was delivered.
    for _ in 0..2 {
        let mut resumed = client.listen(Some(event_id)).await.unwrap();
        let (_, answer) = next_message(&mut resumed).await;
        assert_eq!(answer["id"], id);
        assert_eq!(
            answer["result"]["content"][0]["text"],
            "Reconnection test completed successfully"
        );
        assert_end(resumed).await;
    }
}

#[tokio::test]
async fn listener_receives_each_notification_once_and_after_resuming_only_missed_ones() {
    let harness = Harness::with_child(conformance_server(), &[]).await;
    let client = harness.in_session("alice").await;
    let mut listening = client.listen(None).await.unwrap();
    let beginning = timeout(WAIT_LIMIT, listening.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(beginning.data, "");
    let subscribe = client.request("resources/subscribe", json!({ "uri": RESOURCE }));
    assert!(subscribe.await.unwrap().0.json()["error"].is_null());

    let mut received = Vec::new();
    for _ in 0..2 {
        update_resource(&client).await;
        let (event, notification) = next_message(&mut listening).await;
        assert_eq!(notification["method"], "notifications/resources/updated");
        assert_eq!(notification["params"]["uri"], RESOURCE);
        received.push(event);
    }
    assert_ne!(received[0].id, received[1].id);
    drop(listening);

    for (last, missed) in [
        (&beginning, &received[..]),
        (&received[0], &received[1..]),
        (&received[1], &[]),
    ] {
        let mut resumed = client.listen(last.id.as_deref()).await.unwrap();
        for expected in missed {
            assert_eq!(&next_message(&mut resumed).await.0, expected);
        }
        update_resource(&client).await;
        let (next, _) = next_message(&mut resumed).await;
        assert!(!received.contains(&next), "an event that was received is not replayed");
    }
}
