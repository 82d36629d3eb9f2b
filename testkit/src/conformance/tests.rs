//! The server over in-memory pipes, on paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, duplex, split,
    },
    task::JoinSet,
};

struct Client {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    to_server: WriteHalf<DuplexStream>,
    server: JoinSet<()>,
}

impl Client {
    async fn new(capabilities: Value) -> Self {
        let (ours, theirs) = duplex(64 * 1024);
        let (stdin, stdout) = split(theirs);
        let mut server = JoinSet::new();
        server.spawn(super::serve(stdin, stdout));
        let (from_server, to_server) = split(ours);
        let mut client = Self {
            lines: BufReader::new(from_server).lines(),
            to_server,
            server,
        };
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": capabilities,
            "clientInfo": { "name": "test", "version": "1" },
        });
        client.request("init", "initialize", params).await;
        assert_eq!(client.next().await["result"]["protocolVersion"], "2025-06-18");
        client
    }

    async fn send(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.to_server.write_all(line.as_bytes()).await.unwrap();
    }

    async fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        let request = json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params });
        self.send(request).await;
    }

    async fn call(&mut self, id: u64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
        self.request(id, "tools/call", params).await;
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Calls a tool as a task.
    async fn start_task(&mut self, id: u64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments, "task": { "ttl": 5_000 } });
        self.request(id, "tools/call", params).await;
    }

    /// The result of a request about the first task.
    async fn task(&mut self, method: &str) -> Value {
        self.request(method, method, json!({ "taskId": "task-1" })).await;
        loop {
            let mut message = self.next().await;
            if message["id"] == method {
                return message["result"].take();
            }
        }
    }

    async fn answer(&mut self, question: &Value, result: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }))
            .await;
    }

    async fn accept(&mut self, question: &Value, content: Value) {
        self.answer(question, json!({ "action": "accept", "content": content }))
            .await;
    }

    async fn refuse(&mut self, question: &Value) {
        let error = json!({ "code": -32601, "message": "not declared" });
        self.send(json!({ "jsonrpc": "2.0", "id": question["id"], "error": error }))
            .await;
    }

    async fn text(&mut self, id: u64) -> String {
        let response = self.next().await;
        assert_eq!(response["id"], id, "{response}");
        response["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn request_to_client_may_have_the_id_of_its_call() {
    let mut client = Client::new(json!({ "sampling": {}, "roots": {} })).await;
    client.call(0, "test_sampling", json!({ "prompt": "hello" })).await;
    let sampling = client.next().await;
    client.call(1, "roots", json!({})).await;
    let roots = client.next().await;
    assert_eq!((&sampling["id"], &roots["id"]), (&json!(0), &json!(1)));
    assert_eq!(sampling["params"]["messages"][0]["content"]["text"], "hello");
    let uris = json!({ "roots": [{ "uri": "file:///a" }, { "uri": "file:///b" }] });
    client.send(json!({ "jsonrpc": "2.0", "id": 1, "result": uris })).await;
    assert_eq!(client.text(1).await, "file:///a file:///b");
    let message = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "hi" } });
    client
        .send(json!({ "jsonrpc": "2.0", "id": 0, "result": message }))
        .await;
    assert_eq!(client.text(0).await, "LLM response: hi");
}

#[tokio::test(start_paused = true)]
async fn undeclared_capability_is_not_used() {
    let mut client = Client::new(json!({})).await;
    let sampling = ("test_sampling", json!({ "prompt": "hello" }));
    let elicitation = ("test_elicitation", json!({ "message": "hello" }));
    for (tool, arguments) in [sampling, elicitation, ("roots", json!({}))] {
        client.call(2, tool, arguments).await;
        let response = client.next().await;
        assert_eq!(
            (&response["id"], &response["result"]["isError"]),
            (&json!(2), &json!(true))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_is_recorded_and_never_answered() {
    let mut client = Client::new(json!({})).await;
    client.call(2, "wait", json!({ "tag": "mine" })).await;
    assert_eq!(client.next().await["params"]["progressToken"], 2);
    let params = json!({ "requestId": 2 });
    let cancelled = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
    client.send(cancelled).await;
    // Longer than the call would have waited.
    tokio::time::sleep(Duration::from_secs(120)).await;
    client.call(3, "cancelled", json!({})).await;
    assert_eq!(client.text(3).await, "mine");
}

#[tokio::test(start_paused = true)]
async fn updates_go_to_subscribers_and_messages_below_the_level_are_not_sent() {
    let mut client = Client::new(json!({})).await;
    let uri = json!({ "uri": "test://watched-resource" });
    client.call(2, "update_resource", uri.clone()).await;
    assert_eq!(client.text(2).await, "no subscription");
    client.request(3, "resources/subscribe", uri.clone()).await;
    client.next().await;
    client.call(4, "update_resource", uri.clone()).await;
    assert_eq!(client.next().await["params"], uri);
    assert_eq!(client.text(4).await, "sent");

    client.call(5, "test_tool_with_logging", json!({})).await;
    for _ in 0..3 {
        assert_eq!(client.next().await["params"]["level"], "info");
    }
    client.text(5).await;
    client
        .request(6, "logging/setLevel", json!({ "level": "warning" }))
        .await;
    client.next().await;
    client.call(7, "test_tool_with_logging", json!({})).await;
    client.text(7).await;
}

#[tokio::test(start_paused = true)]
async fn end_of_input_ends_the_server_after_it_has_written_its_answers() {
    let mut client = Client::new(json!({})).await;
    client.request("a", "ping", json!({})).await;
    client.request("b", "nonsense", json!({})).await;
    client.to_server.shutdown().await.unwrap();
    let mut responses = [client.next().await, client.next().await];
    responses.sort_by_key(|response| response["id"].to_string());
    assert_eq!(responses[0], json!({ "jsonrpc": "2.0", "id": "a", "result": {} }));
    assert_eq!(responses[1]["error"]["code"], -32601);
    client.server.join_next().await.unwrap().unwrap();
    assert!(client.lines.next_line().await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn questions_have_keys_and_a_tool_may_ask_again() {
    let mut client = Client::new(json!({})).await;
    let key = |question: &Value| question["params"]["_meta"]["forgejo-mcp-broker/input-key"].clone();
    client
        .call(2, "test_input_required_result_elicitation", json!({}))
        .await;
    let question = client.next().await;
    assert_eq!(
        (&question["method"], key(&question)),
        (&json!("elicitation/create"), json!("user_name"))
    );
    client.accept(&question, json!({ "name": "Alice" })).await;
    assert_eq!(client.text(2).await, "Hello, Alice!");

    client
        .call(3, "test_input_required_result_multi_round", json!({}))
        .await;
    for (expected, content) in [
        ("step1", json!({ "name": "Alice" })),
        ("step2", json!({ "color": "blue" })),
    ] {
        let question = client.next().await;
        assert_eq!(key(&question), expected);
        client.accept(&question, content).await;
    }
    assert_eq!(client.text(3).await, "Alice likes blue");
}

#[tokio::test(start_paused = true)]
async fn three_questions_are_asked_at_once() {
    let mut client = Client::new(json!({})).await;
    client
        .call(2, "test_input_required_result_multiple_inputs", json!({}))
        .await;
    let questions = [client.next().await, client.next().await, client.next().await];
    let methods = questions
        .each_ref()
        .map(|question| question["method"].as_str().unwrap());
    assert_eq!(methods, ["elicitation/create", "sampling/createMessage", "roots/list"]);
    client.accept(&questions[0], json!({ "name": "Alice" })).await;
    let message = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "Hi" } });
    client.answer(&questions[1], message).await;
    client
        .answer(&questions[2], json!({ "roots": [{ "uri": "file:///a" }] }))
        .await;
    assert_eq!(client.text(2).await, "Hi Alice file:///a");
}

#[tokio::test(start_paused = true)]
async fn refused_question_ends_the_call_or_leads_to_another_one() {
    let mut client = Client::new(json!({})).await;
    client.call(2, "test_missing_capability", json!({})).await;
    let question = client.next().await;
    client.refuse(&question).await;
    assert_eq!(client.next().await["result"]["isError"], true);

    client
        .call(3, "test_input_required_result_capabilities", json!({}))
        .await;
    let question = client.next().await;
    client.refuse(&question).await;
    let question = client.next().await;
    assert_eq!(question["method"], "sampling/createMessage");
    client.refuse(&question).await;
    assert_eq!(client.next().await["result"]["isError"], true);

    let prompt = json!({ "name": "test_input_required_result_prompt" });
    client.request(4, "prompts/get", prompt.clone()).await;
    let question = client.next().await;
    client.refuse(&question).await;
    assert_eq!(client.next().await["error"]["code"], -32602);
    client.request(5, "prompts/get", prompt).await;
    let question = client.next().await;
    client.accept(&question, json!({ "context": "tests" })).await;
    let prompt = client.next().await;
    assert_eq!(
        prompt["result"]["messages"][0]["content"]["text"],
        r#"Use this context: "tests""#
    );
}

#[tokio::test(start_paused = true)]
async fn cancelled_call_takes_its_question_back() {
    let mut client = Client::new(json!({})).await;
    client.call(2, "test_streaming_elicitation", json!({})).await;
    let question = client.next().await;
    let params = json!({ "requestId": 2 });
    client
        .send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }))
        .await;
    let cancelled = client.next().await;
    assert_eq!(cancelled["method"], "notifications/cancelled");
    assert_eq!(cancelled["params"]["requestId"], question["id"]);
}

#[tokio::test(start_paused = true)]
async fn task_ends_with_result_failure_or_error() {
    for (tool, status) in [
        ("slow_compute", "completed"),
        ("failing_job", "failed"),
        ("protocol_error_job", "failed"),
    ] {
        let mut client = Client::new(json!({})).await;
        client.start_task(2, tool, json!({ "seconds": 3 })).await;
        let created = client.next().await;
        assert_eq!(
            (&created["result"]["task"]["status"], &created["result"]["task"]["ttl"]),
            (&json!("working"), &json!(5_000))
        );
        assert_eq!(client.task("tasks/get").await["status"], "working");
        let result = client.task("tasks/result").await;
        assert_eq!(client.task("tasks/get").await["status"], status);
        match tool {
            "protocol_error_job" => assert!(result.is_null()),
            _ => {
                assert_eq!(
                    result["_meta"]["io.modelcontextprotocol/related-task"]["taskId"],
                    "task-1"
                );
                assert_eq!(result["isError"], tool == "failing_job");
            }
        }
        // It has ended, and cannot be cancelled any more.
        assert!(client.task("tasks/cancel").await.is_null());
    }
}

#[tokio::test(start_paused = true)]
async fn first_question_of_a_task_may_come_before_the_task_is_known() {
    let mut client = Client::new(json!({})).await;
    client
        .start_task(2, "confirm_delete", json!({ "filename": "a.txt" }))
        .await;
    assert_eq!(client.next().await["params"]["status"], "input_required");
    let question = client.next().await;
    let related = &question["params"]["_meta"]["io.modelcontextprotocol/related-task"];
    assert_eq!(related["taskId"], "task-1");
    assert_eq!(client.next().await["result"]["task"]["taskId"], "task-1");
    client.accept(&question, json!({ "confirm": true })).await;
    let result = client.task("tasks/result").await;
    assert_eq!(result["content"][0]["text"], "deleted a.txt: true");

    client.start_task(3, "multi_input", json!({})).await;
    assert_eq!(client.next().await["result"]["task"]["taskId"], "task-2");
    assert_eq!(client.next().await["params"]["status"], "input_required");
    let questions = [client.next().await, client.next().await];
    client.accept(&questions[1], json!({ "confirm": true })).await;
    client.request(4, "tasks/get", json!({ "taskId": "task-2" })).await;
    assert_eq!(client.next().await["result"]["status"], "input_required");
}

#[tokio::test(start_paused = true)]
async fn tool_may_ask_before_it_becomes_a_task() {
    let mut client = Client::new(json!({})).await;
    client.start_task(2, "test_tool_with_task", json!({})).await;
    let question = client.next().await;
    assert!(question["params"]["_meta"]["io.modelcontextprotocol/related-task"].is_null());
    client.accept(&question, json!({ "name": "Alice" })).await;
    let result = client.task("tasks/result").await;
    assert_eq!(result["content"][0]["text"], "Hello, Alice!");
}

#[tokio::test(start_paused = true)]
async fn cancelled_task_takes_its_question_back() {
    let mut client = Client::new(json!({})).await;
    client
        .start_task(2, "confirm_delete", json!({ "filename": "a.txt" }))
        .await;
    client.next().await;
    let question = client.next().await;
    assert_eq!(client.task("tasks/cancel").await["status"], "cancelled");
    let cancelled = client.next().await;
    assert_eq!(cancelled["params"]["requestId"], question["id"]);
    assert_eq!(client.task("tasks/get").await["status"], "cancelled");
}

#[tokio::test(start_paused = true)]
async fn task_that_the_tool_does_not_support_and_unknown_names_are_errors() {
    let mut client = Client::new(json!({})).await;
    client.start_task(2, "greet", json!({ "name": "Alice" })).await;
    assert_eq!(client.next().await["error"]["code"], -32601);
    client.call(3, "failing_job", json!({})).await;
    assert_eq!(client.next().await["error"]["code"], -32601);
    client.call(4, "greet", json!({ "name": "Alice" })).await;
    assert_eq!(client.text(4).await, "Hello, Alice!");
    client.request(5, "tasks/get", json!({ "taskId": "task-9" })).await;
    assert_eq!(client.next().await["error"]["code"], -32602);
    client
        .request(6, "resources/read", json!({ "uri": "test://nothing" }))
        .await;
    assert_eq!(client.next().await["error"]["code"], -32002);
}
