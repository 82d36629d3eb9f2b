//! The server over in-memory pipes, on paused time.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf, duplex, split},
    task::JoinSet,
};

/// A client on a pair of in-memory pipes.
struct Client {
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    to_server: Option<WriteHalf<DuplexStream>>,
    server: JoinSet<()>,
}

impl Client {
    /// A client that has initialised the server.
    async fn new(capabilities: Value) -> Self {
        let (ours, theirs) = duplex(64 * 1024);
        let (stdin, stdout) = split(theirs);
        let mut server = JoinSet::new();
        server.spawn(super::run(stdin, stdout));
        let (from_server, to_server) = split(ours);
        let mut client = Self {
            lines: BufReader::new(from_server).lines(),
            to_server: Some(to_server),
            server,
        };
        let params = json!({ "protocolVersion": "2025-06-18", "capabilities": capabilities });
        client.request(1, "initialize", params).await;
        assert_eq!(client.next().await["result"]["protocolVersion"], "2025-06-18");
        client
    }

    async fn say(&mut self, message: Value) {
        let line = format!("{message}\n");
        self.to_server
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .await
            .unwrap();
    }

    async fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        self.say(json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params }))
            .await;
    }

    async fn call(&mut self, id: u64, tool: &str, arguments: Value) {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": id } });
        self.request(id, "tools/call", params).await;
    }

    async fn next(&mut self) -> Value {
        let line = self.lines.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The text of the next line, which has to answer this id.
    async fn text(&mut self, id: u64) -> String {
        let answer = self.next().await;
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"]["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_may_have_the_id_of_the_call_that_asks_it() {
    let mut client = Client::new(json!({ "sampling": {}, "roots": {} })).await;
    client.call(1, "test_sampling", json!({ "prompt": "hello" })).await;
    client.call(2, "roots", json!({})).await;
    let (sampling, roots) = (client.next().await, client.next().await);
    assert_eq!((&sampling["id"], &roots["id"]), (&json!(1), &json!(2)));
    assert_eq!(sampling["params"]["messages"][0]["content"]["text"], "hello");
    let uris = json!({ "roots": [{ "uri": "file:///a" }, { "uri": "file:///b" }] });
    client.say(json!({ "jsonrpc": "2.0", "id": 2, "result": uris })).await;
    assert_eq!(client.text(2).await, "file:///a file:///b");
    let answer = json!({ "content": { "type": "text", "text": "hi" } });
    client.say(json!({ "jsonrpc": "2.0", "id": 1, "result": answer })).await;
    assert_eq!(client.text(1).await, "LLM response: hi");
}

#[tokio::test(start_paused = true)]
async fn what_the_client_never_declared_is_not_asked_for() {
    let mut client = Client::new(json!({})).await;
    for (id, tool) in [(2, "test_sampling"), (3, "test_elicitation"), (4, "roots")] {
        client.call(id, tool, json!({})).await;
        let answer = client.next().await;
        assert_eq!(
            (&answer["id"], &answer["result"]["isError"]),
            (&json!(id), &json!(true))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_is_remembered_and_never_answered() {
    let mut client = Client::new(json!({})).await;
    client.call(2, "wait", json!({ "tag": "mine" })).await;
    assert_eq!(client.next().await["params"]["progressToken"], 2);
    client
        .say(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 2 } }))
        .await;
    // Longer than the call would have waited.
    tokio::time::sleep(Duration::from_secs(120)).await;
    client.call(3, "cancelled", json!({})).await;
    assert_eq!(client.text(3).await, "mine");
}

#[tokio::test(start_paused = true)]
async fn only_subscribers_are_told_and_only_severe_messages_are_logged() {
    let mut client = Client::new(json!({})).await;
    let uri = json!({ "uri": "test://watched-resource" });
    client.call(2, "update_resource", uri.clone()).await;
    assert_eq!(client.text(2).await, "nobody has subscribed");
    client.request(3, "resources/subscribe", uri.clone()).await;
    client.next().await;
    client.call(4, "update_resource", uri.clone()).await;
    assert_eq!(client.next().await["params"], uri);
    assert_eq!(client.text(4).await, "told");

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
async fn the_end_of_the_input_ends_it_after_what_was_answered_is_written() {
    let mut client = Client::new(json!({})).await;
    client.request("a", "ping", json!({})).await;
    client.request("b", "nonsense", json!({})).await;
    client.to_server.take().unwrap().shutdown().await.unwrap();
    assert_eq!(
        client.next().await,
        json!({ "jsonrpc": "2.0", "id": "a", "result": {} })
    );
    assert_eq!(client.next().await["error"]["code"], -32601);
    client.server.join_next().await.unwrap().unwrap();
    assert!(client.lines.next_line().await.unwrap().is_none());
}
