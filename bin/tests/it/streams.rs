//! Streams of events that break and are resumed, and what a server says on its own account: through the whole broker.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{
    Browser, Client,
    broker::{ChildCommand, programs},
    client::{Event, EventStream},
};
use tokio::time::timeout;

use crate::harness::{Harness, open, password};

const RECONNECTION: &str = "test_reconnection";
const WATCHED: &str = "test://watched-resource";

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

fn child() -> ChildCommand {
    ChildCommand::plain(&programs().conformance_mcp)
}

/// The next event that carries a message, with the message.
async fn message(stream: &mut EventStream) -> (Event, Value) {
    loop {
        let event = timeout(LIMIT, stream.next())
            .await
            .expect("an event comes")
            .unwrap()
            .expect("the stream goes on");
        if !event.data.is_empty() {
            let message = serde_json::from_str(&event.data).unwrap();
            return (event, message);
        }
    }
}

/// Waits for the end of a stream that has nothing more to say.
async fn end(mut stream: EventStream) {
    let rest = timeout(LIMIT, stream.next()).await.expect("the stream ends").unwrap();
    assert_eq!(rest, None);
}

/// Lets the server say that the watched resource has changed.
async fn update(client: &Client) {
    let params = json!({ "name": "update_resource", "arguments": { "uri": WATCHED } });
    let (answer, id) = client.request("tools/call", params).await.unwrap();
    assert_eq!(answer.messages.len(), 1, "the answer comes alone");
    let answer = answer.response_to(&id).unwrap();
    assert_eq!(answer["result"]["content"][0]["text"], "told");
}

#[tokio::test]
async fn an_answer_waits_for_a_client_whose_stream_broke() {
    let (_bed, forwarder) = Harness::behind_forwarder(child(), RECONNECTION).await;
    let client = Client::new(forwarder.mcp_url().parse().unwrap());
    client
        .sign_in(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    open(&client).await;

    let params = json!({ "name": RECONNECTION, "arguments": {} });
    let (cut, id) = client.request("tools/call", params).await.unwrap();
    let events = cut.events();
    assert_eq!((events.len(), forwarder.cuts()), (1, 1));
    assert_eq!(
        events[0].data, "",
        "a stream begins with an event that says nothing but where it is"
    );
    assert!(events[0].retry.is_some());
    let place = events[0].id.as_deref().unwrap();

    // Once while the call still runs, and once more after its answer was delivered.
    for _ in 0..2 {
        let mut resumed = client.listen(Some(place)).await.unwrap();
        let (_, answer) = message(&mut resumed).await;
        assert_eq!(answer["id"], id);
        assert_eq!(
            answer["result"]["content"][0]["text"],
            "Reconnection test completed successfully"
        );
        end(resumed).await;
    }
}

#[tokio::test]
async fn a_listener_gets_what_the_server_says_once_and_again_only_what_it_has_not_seen() {
    let harness = Harness::with_child(child(), &[]).await;
    let client = harness.in_session("alice").await;
    let mut listening = client.listen(None).await.unwrap();
    let beginning = timeout(LIMIT, listening.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(beginning.data, "");
    let subscribe = client.request("resources/subscribe", json!({ "uri": WATCHED }));
    assert!(subscribe.await.unwrap().0.json()["error"].is_null());

    let mut heard = Vec::new();
    for _ in 0..2 {
        update(&client).await;
        let (event, said) = message(&mut listening).await;
        assert_eq!(said["method"], "notifications/resources/updated");
        assert_eq!(said["params"]["uri"], WATCHED);
        heard.push(event);
    }
    assert_ne!(heard[0].id, heard[1].id);
    drop(listening);

    for (last, missed) in [(&beginning, &heard[..]), (&heard[0], &heard[1..]), (&heard[1], &[])] {
        let mut back = client.listen(last.id.as_deref()).await.unwrap();
        for expected in missed {
            assert_eq!(&message(&mut back).await.0, expected);
        }
        update(&client).await;
        let (next, _) = message(&mut back).await;
        assert!(!heard.contains(&next), "what was seen does not come again");
    }
}
