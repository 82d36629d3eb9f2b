//! The sessions of clients that have none: which requests share a child, and for how long.

use serde_json::{Value, json};
use testkit::Browser;
use tokio::task::JoinSet;

use super::{ask, child_of, with_forms};
use crate::{
    conversation::{CHILD_STARTED, IDLE, rotate},
    harness::{Harness, SHORT_IDLE_TIMEOUT, login_in, messages::refresh_form},
};

#[tokio::test]
async fn simultaneous_first_requests_make_one_child() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let mut requests = JoinSet::new();
    for _ in 0..8 {
        let window = alice.modern();
        requests.spawn(async move { child_of(&window).await });
    }
    let children = requests.join_all().await;
    assert!(children.iter().all(|child| *child == children[0]), "{children:?}");
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 1);
}

#[tokio::test]
async fn each_set_of_capabilities_has_a_child_that_is_told_exactly_it() {
    let harness = Harness::new(&[]).await;
    let client = harness.signed_in("alice").await;
    let form = json!({ "elicitation": { "form": {} } });
    let mut children = Vec::new();
    for (declared, told) in [
        (json!({}), json!({})),
        (json!({ "elicitation": {} }), form.clone()),
        (
            json!({ "elicitation": { "form": {} }, "extensions": { "io.modelcontextprotocol/tasks": {} } }),
            form,
        ),
    ] {
        let client = client.modern().with_capabilities(declared);
        children.push(child_of(&client).await);
        let received = client.call_tool("test_received", json!({})).await.unwrap().json();
        assert_eq!(received[0]["method"], "initialize", "{received}");
        assert_eq!(received[0]["params"]["capabilities"], told);
        assert_eq!(received[0]["params"]["protocolVersion"], "2025-11-25");
        assert_eq!(received[0]["params"]["clientInfo"]["name"], "testkit");
    }
    assert_ne!(children[0], children[1]);
    assert_eq!(
        children[1], children[2],
        "the order and the extension of tasks make no difference"
    );
}

#[tokio::test]
async fn grants_have_their_own_children() {
    let harness = Harness::new(&[]).await;
    let mut children = Vec::new();
    for (client, login) in [
        (harness.signed_in("alice").await, "alice"),
        (harness.signed_in("bob").await, "bob"),
        (harness.other_client("bob").await, "bob"),
    ] {
        let reply = client.modern().call_tool("get_my_user_info", json!({})).await.unwrap();
        assert_eq!(login_in(reply.text()), login);
        children.push(child_of(&client.modern()).await);
    }
    children.sort_by_key(Value::as_u64);
    children.dedup();
    assert_eq!(children.len(), 3);
}

#[tokio::test]
async fn requests_go_on_after_idleness_rotation_kill_and_restart() {
    let (mut harness, alice) = with_forms(&SHORT_IDLE_TIMEOUT).await;
    let first = child_of(&alice).await;
    harness.broker.log().contains(IDLE).await;
    let woken = child_of(&alice).await;
    assert_ne!(first, woken);
    rotate(&harness, "alice").await;
    let rotated = child_of(&alice).await;
    assert_ne!(rotated, woken);
    harness.kill_and_restart().await;
    let after_kill = child_of(&alice).await;
    assert_ne!(after_kill, rotated);
    harness.restart().await;
    assert_ne!(child_of(&alice).await, after_kill);
}

#[tokio::test]
async fn revoked_grant_gets_401_and_its_child_ends() {
    let (harness, alice) = with_forms(&[]).await;
    let bob = harness.signed_in("bob").await.modern();
    let child = child_of(&bob).await;
    ask(&alice, "sure?").await;
    let client = alice.client();
    let (token, id) = (client.refresh_token().unwrap(), client.client_id().unwrap());
    let [_, _, (_, client_id)] = refresh_form(&token, &id);
    let form = format!("token={token}&client_id={client_id}");
    let revoked = testkit::http_client::client(std::time::Duration::from_secs(60))
        .post(format!("{}/oauth/revoke", harness.broker.url()))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    assert_eq!(revoked.send().await.unwrap().status(), 200);
    let answer = alice.request("server/discover", json!({})).await.unwrap().answer;
    assert_eq!(answer.status, 401, "{}", answer.text());
    harness.wait_for_children(1).await;
    assert_eq!(child_of(&bob).await, child);
    // The same user and client, signed in again: not the session of before.
    client
        .sign_in(&mut Browser::new(), "alice", "alice-password")
        .await
        .unwrap();
    child_of(&alice).await;
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 3);
}
