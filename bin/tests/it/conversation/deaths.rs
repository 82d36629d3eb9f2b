//! Requests that come when their child dies.

use serde_json::{Value, json};
use testkit::{client::Answer, forgejo_mcp::Script};
use tokio::task::JoinSet;

use super::text_of;
use crate::harness::Harness;

#[tokio::test]
async fn request_right_after_its_child_was_killed_is_served_by_the_next() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    for round in 0..20 {
        harness.wait_for_children(1).await[0].kill().unwrap();
        let (answer, id) = alice.request("tools/list", json!({})).await.unwrap();
        let response = answer.response_to(&id).cloned().unwrap_or_default();
        assert!(
            response["result"]["tools"].is_array(),
            "round {round}: {} {}",
            answer.status,
            response["error"]
        );
    }
}

#[tokio::test]
async fn requests_that_change_nothing_are_sent_again_and_others_fail_with_what_is_not_known() {
    let (harness, script) = Harness::with_script(&Script::default(), &[]).await;
    let alice = harness.in_session("alice").await;
    let first = harness.only_child();
    // The hints of the tools are known from their list.
    alice.list_tools().await.unwrap();
    let silent = ["test_read", "test_repeat", "test_write", "ping", "resources/list"];
    script
        .write(&Script {
            never_answers: silent.map(str::to_owned).to_vec(),
            ..Script::default()
        })
        .unwrap();
    super::kill_child(&harness).await;
    first.exited().await.unwrap();
    super::call(&alice, "test_echo", json!({})).await;
    let silent_child = harness.only_child();
    let log = harness.broker.log();
    // The list of the new child is read again.
    log.contains(&format!("got tools/list pid={}", silent_child.pid)).await;
    script.write(&Script::default()).unwrap();

    let mut requests = JoinSet::new();
    for (id, method, tool) in [
        ("read", "tools/call", "test_read"),
        ("repeat", "tools/call", "test_repeat"),
        ("write", "tools/call", "test_write"),
        ("ping", "ping", ""),
        ("list", "resources/list", ""),
    ] {
        let params = if tool.is_empty() {
            json!({})
        } else {
            json!({ "name": tool, "arguments": {} })
        };
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let client = alice.another_session();
        client.set_session_id(alice.session_id().as_deref());
        requests.spawn(async move { (id, client.post(message.to_string()).await.unwrap()) });
    }
    for taken in ["tool=test_read", "tool=test_repeat", "tool=test_write"] {
        log.contains(taken).await;
    }
    for method in ["ping", "resources/list"] {
        log.contains(&format!("got {method} pid={}", silent_child.pid)).await;
    }
    silent_child.kill().unwrap();

    let answers: Vec<(&str, Answer)> = requests.join_all().await;
    let response = |wanted: &str| -> Value {
        let (id, answer) = answers.iter().find(|(id, _)| *id == wanted).unwrap();
        let response = answer.response_to(&json!(id)).cloned();
        response.unwrap_or_else(|| panic!("no response to {id}: {}", answer.text()))
    };
    for tool in ["read", "repeat"] {
        let pid = text_of(&response(tool))["pid"].clone();
        assert_ne!(pid, silent_child.pid, "{tool}");
    }
    for method in ["ping", "list"] {
        assert!(response(method)["result"].is_object(), "{}", response(method));
    }
    let error = response("write")["error"]["message"].to_string();
    assert!(error.contains("not known"), "{error}");
}
