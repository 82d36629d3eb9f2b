//! Streams that clients resume, although the child of the call, or the broker that began it, is
//! gone.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use testkit::{Client, client::ClientError};
use tokio::time::timeout;

use super::{DIED, SOON, call, calls::OpenCall, kill_child, next_event};
use crate::harness::{Harness, messages::tool_call_request};

/// The time within which a client that resumes a lost call must learn that it is lost.
const LOST_WITHIN: Duration = Duration::from_secs(2);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Resumes the stream of a call that is lost, and checks that its error comes with its id, on an
/// event with an id, and that the stream then ends.
async fn assert_lost(client: &Client, last_event_id: &str, id: &Value) {
    let error = timeout(LOST_WITHIN, async {
        let mut resumed = client.listen(Some(last_event_id)).await.unwrap();
        let event = loop {
            let event = next_event(&mut resumed).await.expect("the error comes before the end");
            if !event.data.is_empty() {
                break event;
            }
        };
        assert!(event.id.is_some());
        assert_eq!(next_event(&mut resumed).await, None);
        serde_json::from_str::<Value>(&event.data).unwrap()
    });
    let error = error.await.expect("the client learns at once that its call is lost");
    assert_eq!(&error["id"], id, "{error}");
    assert!(error["error"]["message"].is_string(), "{error}");
}

/// Begins a call that never ends and leaves its stream. Returns the id of the last event.
async fn begin_and_leave(client: &Client, id: &Value) -> String {
    let sleep = tool_call_request(id.clone(), "test_sleep", &json!({ "ms": 600_000 }));
    OpenCall::post(client, id, sleep).await.leave().await
}

#[tokio::test]
async fn resumed_call_of_a_dead_child_fails_at_once_while_the_session_sleeps() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    for id in [json!("lost"), json!(7)] {
        let last = begin_and_leave(&alice, &id).await;
        kill_child(&harness).await;
        assert_lost(&alice, &last, &id).await;
        assert_eq!(harness.broker.children().unwrap(), [], "no child is needed for it");
        call(&alice, "test_echo", json!({})).await;
    }
}

#[tokio::test]
async fn resumed_call_of_a_broker_that_stopped_or_was_killed_fails_at_once_and_starts_no_child() {
    for killed in [false, true] {
        let mut harness = Harness::new(&[("server.drain_timeout", "100ms")]).await;
        let alice = harness.in_session("alice").await;
        let id = json!("lost");
        let last = begin_and_leave(&alice, &id).await;
        match killed {
            true => harness.kill_and_restart().await,
            false => harness.restart().await,
        }
        assert_lost(&alice, &last, &id).await;
        assert_eq!(harness.broker.children().unwrap(), []);
        call(&alice, "test_echo", json!({})).await;
    }
}

/// Resumes behind the last event of a call: the answer has to end the polling, so it must not be a
/// stream.
async fn assert_nothing_to_resume(client: &Client, last_event_id: &str) {
    let mut headers = client.headers();
    headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers.insert(LAST_EVENT_ID, HeaderValue::from_str(last_event_id).unwrap());
    let answer = timeout(SOON, client.raw(Method::GET, headers, "")).await;
    let answer = answer.expect("such a stream is not held open").unwrap();
    let ends_polling = [StatusCode::NO_CONTENT, StatusCode::METHOD_NOT_ALLOWED];
    assert!(
        ends_polling.contains(&answer.status),
        "{} {}",
        answer.status,
        answer.text()
    );
}

#[tokio::test]
async fn resume_behind_the_final_event_is_no_stream_awake_asleep_and_after_a_restart() {
    let mut harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    // A success and a failure, both slow enough for a stream.
    let (success, id) = alice.request("tools/call", slow("test_stamp")).await.unwrap();
    assert!(success.response_to(&id).unwrap()["result"].is_object());
    let child = harness.only_child();
    let (failure, ()) = tokio::join!(alice.request("tools/call", endless()), async {
        harness.broker.log().contains("tool=test_sleep").await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        child.kill().unwrap();
    });
    let (failure, id) = failure.unwrap();
    assert!(failure.response_to(&id).unwrap()["error"].is_object());
    harness.broker.log().contains(DIED).await;

    let finals = [&success, &failure].map(|answer| {
        let event = answer.events().last().expect("the answer is a stream");
        event.id.clone().unwrap()
    });
    for stage in ["asleep", "awake", "restarted"] {
        if stage == "awake" {
            call(&alice, "test_echo", json!({})).await;
        } else if stage == "restarted" {
            harness.restart().await;
        }
        for last_event_id in &finals {
            assert_nothing_to_resume(&alice, last_event_id).await;
        }
    }
}

fn slow(tool: &str) -> Value {
    json!({ "name": tool, "arguments": { "mark": "m", "ms": 1_500 } })
}

fn endless() -> Value {
    json!({ "name": "test_sleep", "arguments": { "ms": 600_000 } })
}

#[tokio::test]
async fn stream_of_an_older_revision_begins_with_no_empty_event() -> Result<(), ClientError> {
    let harness = Harness::new(&[]).await;
    for (version, is_primed) in [("2025-06-18", false), ("2025-03-26", false), ("2025-11-25", true)] {
        let alice = harness.signed_in("alice").await;
        alice.initialize_as(version).await?;
        alice.initialized().await?;
        let (answer, id) = alice.request("tools/call", slow("test_stamp")).await?;
        let events = answer.events();
        assert_eq!(events[0].data.is_empty(), is_primed, "{version}: {events:?}");
        assert!(answer.response_to(&id).is_some());

        let mut listening = alice.listen(None).await?;
        call(&alice, "test_announce", Value::Null).await;
        let first = next_event(&mut listening).await.unwrap();
        assert_eq!(first.data.is_empty(), is_primed, "{version}: {first:?}");
    }
    Ok(())
}
