//! Clients of 2026-07-28 in front of a server of 2026-07-28: the two translations compose.

use std::sync::Arc;

use bridge::{Destination, ServerEra};
use serde_json::{Value, json};

use super::{accept, call, config, json_of, post, request, retry, start};
use crate::harness::{Bridge, Server};

async fn bridge() -> (Arc<Bridge>, Server) {
    let mut first = call(0, "t").http();
    let destination = bridge::route(&mut first, "grant", &config());
    assert!(matches!(destination, Destination::Implicit { .. }));
    let snapshot = bridge::initial_snapshot(&first).expect("it makes a session");
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut server = Server::new(far, &config());
    let (bridge, ()) = tokio::join!(
        Bridge::connect_as(ServerEra::Modern, near, config(), Some(&snapshot)),
        async {
            let (id, request) = next(&mut server).await;
            assert_eq!(request["method"], "server/discover");
            let capabilities = json!({ "tools": { "listChanged": true }, "prompts": {} });
            let result = json!({ "supportedVersions": ["2026-07-28"], "capabilities": capabilities });
            server.result(id, &result.to_string()).await;
        }
    );
    (Arc::new(bridge.expect("a server")), server)
}

async fn next(server: &mut Server) -> (u64, Value) {
    let (id, line) = server.request().await;
    (id, serde_json::from_str(&line).expect("JSON"))
}

/// The next request with this method. Answers what the link asks for itself.
async fn next_call(server: &mut Server, method: &str) -> (u64, Value) {
    loop {
        let (id, request) = next(server).await;
        match request["method"].as_str() {
            Some(found) if found == method => return (id, request),
            Some("tools/list") => server.result(id, r#"{"resultType":"complete","tools":[]}"#).await,
            // The stream of announcements stays open.
            Some("subscriptions/listen") => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_reaches_the_server_with_the_capabilities_of_its_client() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, call("a", "t"));
    let (id, sent) = next_call(&mut server, "tools/call").await;
    let meta = &sent["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert!(meta["io.modelcontextprotocol/clientCapabilities"]["elicitation"].is_object());
    assert_eq!(sent["params"]["arguments"], json!({ "a": 1 }));
    server
        .result(
            id,
            r#"{"resultType":"complete","content":[],"structuredContent":{"x":1.0}}"#,
        )
        .await;
    let done = json_of(reply).await;
    assert_eq!(
        (&done["id"], &done["result"]["resultType"]),
        (&json!("a"), &json!("complete"))
    );
    assert_eq!(done["result"]["structuredContent"], json!({ "x": 1.0 }));
}

#[tokio::test(start_paused = true)]
async fn questions_belong_to_the_calls_that_the_server_names() {
    let (bridge, mut server) = bridge().await;
    let (older, newer) = (call(1, "older"), call(2, "newer"));
    let first = start(&bridge, older.clone());
    let (older_id, _) = next_call(&mut server, "tools/call").await;
    let second = start(&bridge, newer.clone());
    let (newer_id, _) = next_call(&mut server, "tools/call").await;
    let asks = |text: &str| {
        let params = json!({ "message": text, "requestedSchema": { "type": "object", "properties": {} } });
        json!({
            "resultType": "input_required", "requestState": format!("state of {text}"),
            "inputRequests": { "who": { "method": "elicitation/create", "params": params } },
        })
        .to_string()
    };
    server.result(older_id, &asks("older")).await;
    let asked = json_of(first).await;
    assert_eq!(asked["result"]["inputRequests"]["who"]["params"]["message"], "older");
    server.result(newer_id, &asks("newer")).await;
    assert_eq!(
        json_of(second).await["result"]["inputRequests"]["who"]["params"]["message"],
        "newer"
    );

    let done = start(&bridge, retry(&older, 3, &asked, json!({ "who": accept("me") })));
    let (id, again) = next_call(&mut server, "tools/call").await;
    assert_eq!(again["params"]["name"], "older");
    assert_eq!(again["params"]["requestState"], "state of older");
    assert_eq!(again["params"]["inputResponses"], json!({ "who": accept("me") }));
    server.result(id, r#"{"resultType":"complete","content":[1]}"#).await;
    assert_eq!(json_of(done).await["result"]["content"], json!([1]));
}

#[tokio::test(start_paused = true)]
async fn announcements_of_the_server_reach_the_stream_that_wants_them() {
    let (bridge, mut server) = bridge().await;
    let wanted = json!({ "notifications": { "toolsListChanged": true } });
    let listen = request(7, "subscriptions/listen", wanted, json!({}));
    let mut stream = post(&bridge, &config(), &listen).await;
    assert!(stream.message().await.contains("acknowledged"));
    let (id, _) = next_call(&mut server, "subscriptions/listen").await;
    for method in [
        "notifications/subscriptions/acknowledged",
        "notifications/tools/list_changed",
    ] {
        let meta = json!({ "io.modelcontextprotocol/subscriptionId": id });
        let params = json!({ "_meta": meta, "notifications": { "toolsListChanged": true } });
        let line = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        server.write(&line.to_string()).await;
    }
    let changed: Value = serde_json::from_str(&stream.message().await).expect("JSON");
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(changed["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 7);
}
