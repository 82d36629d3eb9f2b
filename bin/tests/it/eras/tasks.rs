//! Tasks: the extension of 2026-07-28 in front of the tasks of 2025-11-25.

use serde_json::{Value, json};
use testkit::client::{ModernClient, Reply};
use tokio::time::timeout;

use super::with_every_feature;
use crate::{
    conversation::rotate,
    harness::{Harness, WAIT_LIMIT, conformance_mcp},
};

/// A harness, and a client that knows tasks.
async fn with_tasks() -> (Harness, ModernClient) {
    let harness = Harness::with_child(conformance_mcp(), &[]).await;
    let alice = harness.signed_in("alice").await.modern();
    (harness, knowing_tasks(alice))
}

fn knowing_tasks(client: ModernClient) -> ModernClient {
    let extensions = json!({ "io.modelcontextprotocol/tasks": {} });
    client.with_capabilities(json!({ "elicitation": {}, "extensions": extensions }))
}

/// Calls a tool that becomes a task. Returns the id of the task.
async fn start(client: &ModernClient, tool: &str, arguments: Value) -> Value {
    let reply = client.call_tool(tool, arguments).await.unwrap();
    let result = reply.result();
    assert_eq!(result["resultType"], "task", "{result}");
    assert!(
        result["ttlMs"].is_u64() && result["pollIntervalMs"].is_u64(),
        "{result}"
    );
    result["taskId"].clone()
}

async fn ask_about(client: &ModernClient, method: &str, task: &Value) -> Reply {
    client.request(method, json!({ "taskId": task })).await.unwrap()
}

/// Polls a task until it has this status.
async fn until(client: &ModernClient, task: &Value, status: &str) -> Value {
    let wait = timeout(WAIT_LIMIT, async {
        loop {
            let reply = ask_about(client, "tasks/get", task).await;
            let result = reply.result();
            assert_eq!((&result["resultType"], &result["taskId"]), (&json!("complete"), task));
            if result["status"] == status {
                return result.clone();
            }
        }
    });
    wait.await.unwrap_or_else(|_| panic!("{task} is never {status}"))
}

#[tokio::test]
async fn task_ends_with_its_result_or_its_error() {
    let (_harness, alice) = with_tasks().await;
    let task = start(&alice, "slow_compute", json!({ "seconds": 0 })).await;
    let ended = until(&alice, &task, "completed").await;
    assert_eq!(ended["result"]["content"][0]["text"], "Computed for 0 seconds");
    let task = start(&alice, "failing_job", json!({})).await;
    let ended = until(&alice, &task, "completed").await;
    assert_eq!(ended["result"]["isError"], true, "a result of a tool is a result");
    let task = start(&alice, "protocol_error_job", json!({})).await;
    let ended = until(&alice, &task, "failed").await;
    assert_eq!((&ended["error"]["code"], ended.get("result")), (&json!(-32603), None));
}

#[tokio::test]
async fn question_of_a_task_is_answered_through_it_over_a_rotation() {
    let (harness, alice) = with_tasks().await;
    let task = start(&alice, "confirm_delete", json!({ "filename": "f" })).await;
    let asking = until(&alice, &task, "input_required").await;
    rotate(&harness, "alice").await;
    let questions = asking["inputRequests"].as_object().unwrap();
    let (key, question) = questions.iter().next().unwrap();
    assert_eq!(question["params"]["message"], "Delete f?");
    let answers = json!({ key: { "action": "accept", "content": { "confirm": true } }, "other": {} });
    let update = json!({ "taskId": task, "inputResponses": answers });
    let update = alice.request("tasks/update", update).await.unwrap();
    assert_eq!(update.result()["resultType"], "complete");
    let ended = until(&alice, &task, "completed").await;
    assert_eq!(ended["result"]["content"][0]["text"], "deleted f: true");
    harness.wait_for_children(1).await;
}

#[tokio::test]
async fn task_is_cancelled() {
    let (_harness, alice) = with_tasks().await;
    let task = start(&alice, "slow_compute", json!({ "seconds": 600 })).await;
    // The second has nothing left to do.
    for _ in 0..2 {
        assert_eq!(
            ask_about(&alice, "tasks/cancel", &task).await.result()["resultType"],
            "complete"
        );
        until(&alice, &task, "cancelled").await;
    }
}

#[tokio::test]
async fn status_reaches_the_stream_that_asked_for_the_task() {
    let (_harness, alice) = with_tasks().await;
    let task = start(&alice, "confirm_delete", json!({ "filename": "f" })).await;
    let filter = json!({ "notifications": { "taskIds": [task] } });
    let mut stream = alice
        .stream(&alice.message("subscriptions/listen", filter))
        .await
        .unwrap();
    let acknowledged = crate::conversation::next_message(&mut stream).await;
    assert_eq!(acknowledged["params"]["notifications"], json!({ "taskIds": [task] }));
    ask_about(&alice, "tasks/cancel", &task).await.result();
    loop {
        let message = crate::conversation::next_message(&mut stream).await;
        assert_eq!(
            (&message["method"], &message["params"]["taskId"]),
            (&json!("notifications/tasks"), &task)
        );
        if message["params"]["status"] == "cancelled" {
            return;
        }
    }
}

#[tokio::test]
async fn tasks_of_others_and_unknown_ones_are_equally_unknown() {
    let (harness, alice) = with_tasks().await;
    let task = start(&alice, "confirm_delete", json!({ "filename": "f" })).await;
    let bob = knowing_tasks(harness.signed_in("bob").await.modern());
    let other = knowing_tasks(harness.other_client("alice").await.modern());
    let text = task.as_str().unwrap();
    let bare = text.split_once('-').unwrap().1;
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        for (client, task) in [
            (&bob, text),
            (&other, text),
            (&alice, bare),
            (&alice, "no-such"),
            (&alice, ""),
        ] {
            let reply = ask_about(client, method, &json!(task)).await;
            assert_eq!(reply.error(), (200, -32602), "{method} {task}");
        }
    }
    until(&alice, &task, "input_required").await;
}

#[tokio::test]
async fn clients_without_the_extension_get_results_or_a_refusal() {
    let (_harness, alice) = with_every_feature(&[]).await;
    let plain = alice.call_tool("slow_compute", json!({ "seconds": 0 })).await.unwrap();
    assert_eq!(plain.text(), "Computed for 0 seconds");
    let required = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    for reply in [
        alice.call_tool("failing_job", json!({})).await.unwrap(),
        ask_about(&alice, "tasks/get", &json!("x")).await,
    ] {
        assert_eq!(reply.error(), (400, -32021));
        assert_eq!(reply.data(), &json!({ "requiredCapabilities": required }));
    }
}
