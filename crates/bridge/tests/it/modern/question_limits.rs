//! Questions at the limits: of parked calls, of kept answers, of capabilities and of servers.

use serde_json::json;

use super::{bridge, json_of, request, start};

#[tokio::test(start_paused = true)]
async fn tools_that_could_not_be_read_are_read_again() {
    let (bridge, mut server) = bridge().await;
    let tool = || {
        request(
            1,
            "tools/call",
            json!({ "name": "t", "arguments": { "a": 1 } }),
            json!({}),
        )
    };
    let reply = start(&bridge, tool());
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, _) = server.request().await;
    server.error(id, -32603).await;
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    json_of(reply).await;
    let reply = start(&bridge, tool());
    let (id, line) = server.request().await;
    assert!(line.contains("tools/list"), "{line}");
    let schema = json!({ "properties": { "a": { "type": "integer", "x-mcp-header": "A" } } });
    server
        .result(
            id,
            &json!({ "tools": [{ "name": "t", "inputSchema": schema }] }).to_string(),
        )
        .await;
    assert_eq!(json_of(reply).await["error"]["code"], -32020);
}
