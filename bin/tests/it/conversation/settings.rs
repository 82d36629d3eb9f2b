//! What a client has set, and the lists that it has fetched, when another child takes over.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Client, forgejo_mcp::Script};
use tokio::{task::JoinSet, time::timeout};

use super::{CHILD_STARTED, call, kill_child, next_message, rotate};
use crate::harness::Harness;

const RESOURCE: &str = "test://resource";

/// The time within which a change of a list is announced.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(3);

async fn subscribe(client: &Client, uri: &str) {
    let (answer, id) = client
        .request("resources/subscribe", json!({ "uri": uri }))
        .await
        .unwrap();
    assert!(
        answer.response_to(&id).unwrap()["result"].is_object(),
        "{}",
        answer.text()
    );
}

#[tokio::test]
async fn subscription_that_the_replaced_child_grants_is_known_to_the_next() {
    let slow = Script {
        subscribe_ms: 1_000,
        ..Script::default()
    };
    let (harness, script) = Harness::with_script(&slow, &[]).await;
    let alice = harness.in_session("alice").await;
    let old = harness.only_child();
    script.write(&Script::default()).unwrap();
    let mut subscribing = JoinSet::new();
    let subscriber = alice.another_session();
    subscriber.set_session_id(alice.session_id().as_deref());
    subscribing.spawn(async move { subscribe(&subscriber, RESOURCE).await });
    let got = format!("got resources/subscribe pid={}", old.pid);
    harness.broker.log().contains(&got).await;
    // It grants the subscription only after the session has moved.
    old.pause().unwrap();
    rotate(&harness, "alice").await;
    old.resume().unwrap();
    subscribing.join_next().await.unwrap().unwrap();

    let mut listening = alice.listen(None).await.unwrap();
    let update = call(&alice, "test_update", json!({ "uri": RESOURCE })).await;
    assert_ne!(
        update["pid"], old.pid,
        "another child serves, or the test proves nothing"
    );
    assert_eq!(update["subscribed"], true);
    let message = next_message(&mut listening).await;
    assert_eq!(message["params"]["uri"], RESOURCE, "{message}");
}

#[tokio::test]
async fn three_hundred_slow_subscriptions_do_not_fail_the_next_start() {
    let (harness, script) = Harness::with_script(&Script::default(), &[("child.start_timeout", "5s")]).await;
    let alice = harness.in_session("alice").await;
    for number in 0..300 {
        subscribe(&alice, &format!("{RESOURCE}/{number}")).await;
    }
    script
        .write(&Script {
            subscribe_ms: 40,
            ..Script::default()
        })
        .unwrap();
    kill_child(&harness).await;
    let update = call(&alice, "test_update", json!({ "uri": format!("{RESOURCE}/299") })).await;
    assert_eq!(update["subscribed"], true);
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2);
}

#[tokio::test]
async fn tools_that_differ_after_a_restart_are_announced() {
    let (harness, script) = Harness::with_script(&Script::default(), &[]).await;
    let alice = harness.in_session("alice").await;
    let tools = alice.list_tools().await.unwrap().len();
    let mut listening = alice.listen(None).await.unwrap();
    script
        .write(&Script {
            more_tools: vec!["another".to_owned()],
            ..Script::default()
        })
        .unwrap();
    kill_child(&harness).await;
    call(&alice, "test_echo", json!({})).await;
    let message = timeout(ANNOUNCED_WITHIN, next_message(&mut listening))
        .await
        .expect("the change is announced in time");
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert_eq!(alice.list_tools().await.unwrap().len(), tools + 1);
}

#[tokio::test]
async fn tools_that_are_the_same_after_a_restart_are_compared_and_not_announced() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    alice.list_tools().await.unwrap();
    subscribe(&alice, RESOURCE).await;
    let mut listening = alice.listen(None).await.unwrap();
    rotate(&harness, "alice").await;
    let pid = call(&alice, "test_read", Value::Null).await["pid"].clone();
    let compared = format!("got tools/list pid={pid}");
    timeout(ANNOUNCED_WITHIN, harness.broker.log().contains(&compared))
        .await
        .expect("the list of the new child is fetched");
    // The child answers in order: the comparison is over when the broker passes this on.
    alice.request("ping", json!({})).await.unwrap();
    call(&alice, "test_update", json!({ "uri": RESOURCE })).await;
    let message = next_message(&mut listening).await;
    assert_eq!(message["method"], "notifications/resources/updated");
}
