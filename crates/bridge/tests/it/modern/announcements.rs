//! Streams of `subscriptions/listen`.

use serde_json::{Value, json};

use super::{bridge, config, list_tools, post, request, rotate, start};
use crate::harness::{Reply, Sse, no_server, until};

fn listen(id: u64, notifications: &Value) -> super::ModernRequest {
    request(
        id,
        "subscriptions/listen",
        json!({ "notifications": notifications }),
        json!({}),
    )
}

async fn next(reply: &mut Reply) -> Value {
    serde_json::from_str(&reply.message().await).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_acknowledged_with_what_the_server_sends() {
    let (bridge, mut server) = bridge().await;
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let mut stream = post(&bridge, &config(), &listen(7, &wanted)).await;
    assert_eq!(
        next(&mut stream).await["params"],
        json!({ "notifications": { "toolsListChanged": true }, "_meta": { "io.modelcontextprotocol/subscriptionId": 7 } })
    );
    let mut silent = post(&bridge, &config(), &listen(8, &json!({}))).await;
    next(&mut silent).await;
    server
        .write(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed","params":{"_meta":{"a":1}}}"#)
        .await;
    let changed = next(&mut stream).await;
    assert_eq!(changed["method"], "notifications/tools/list_changed");
    assert_eq!(
        changed["params"]["_meta"],
        json!({ "a": 1, "io.modelcontextprotocol/subscriptionId": 7 })
    );
    bridge.close(&no_server());
    let closing = json!({ "resultType": "complete", "_meta": { "io.modelcontextprotocol/subscriptionId": 7 } });
    assert_eq!(
        next(&mut stream).await,
        json!({ "jsonrpc": "2.0", "id": 7, "result": closing })
    );
    assert_eq!(stream.next().await, Sse::End);
    assert_eq!(next(&mut silent).await["id"], 8);
}

#[tokio::test(start_paused = true)]
async fn resources_are_subscribed_once_and_again_at_the_next_server() {
    let (bridge, mut server) = bridge().await;
    let wanted = json!({ "resourceSubscriptions": ["a:b"] });
    assert!(server.line().await.contains("notifications/initialized"));
    let mut one = post(&bridge, &config(), &listen(1, &wanted)).await;
    let (id, line) = server.request().await;
    assert!(
        line.contains(r#""method":"resources/subscribe","params":{"uri":"a:b"}"#),
        "{line}"
    );
    server.result(id, "{}").await;
    let mut other = post(&bridge, &config(), &listen(2, &wanted)).await;
    next(&mut one).await;
    next(&mut other).await;

    let (_link, mut server) = rotate(&bridge, 2).await;
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, line) = server.request().await;
    assert!(line.contains("resources/subscribe"), "{line}");
    server.result(id, "{}").await;
    for uri in ["a:b", "a:c"] {
        let updated =
            json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": uri } });
        server.write(&updated.to_string()).await;
    }
    drop(one);
    assert_eq!(next(&mut other).await["params"]["uri"], "a:b");
    drop(other);
    let line = server.line().await;
    assert!(
        line.contains(r#""method":"resources/unsubscribe","params":{"uri":"a:b"}"#),
        "{line}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_changed_list_of_the_next_server_is_announced() {
    let (bridge, mut server) = bridge().await;
    let mut stream = post(&bridge, &config(), &listen(1, &json!({ "toolsListChanged": true }))).await;
    next(&mut stream).await;
    let reply = start(&bridge, request(1, "tools/call", json!({ "name": "t" }), json!({})));
    list_tools(&mut server, r#"{"name":"t"}"#).await;
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    reply.await.expect("no panic");
    let (_link, mut server) = rotate(&bridge, 2).await;
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, _) = server.request().await;
    server.result(id, r#"{"tools":[{"name":"u"}]}"#).await;
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
}

#[tokio::test(start_paused = true)]
async fn a_stream_beyond_the_limit_ends_the_oldest() {
    let config = bridge::Config {
        max_listeners: 1,
        ..config()
    };
    let (bridge, _server) = super::bridge_with(config.clone()).await;
    let mut oldest = post(&bridge, &config, &listen(1, &json!({}))).await;
    next(&mut oldest).await;
    let _newest = post(&bridge, &config, &listen(2, &json!({}))).await;
    assert_eq!(next(&mut oldest).await["id"], 1);
    assert_eq!(oldest.next().await, Sse::End);
    until(|| bridge.in_flight(1) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_filter_that_is_none_is_rejected() {
    let (bridge, _server) = bridge().await;
    let reply = post(&bridge, &config(), &listen(1, &json!([]))).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.error().await["error"]["code"], -32602);
}
