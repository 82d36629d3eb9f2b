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
