//! Requests and results.

use std::time::Duration;

use serde_json::json;

use super::{INITIALIZED, bridge, bridge_with, call, config, json_of, list_tools, post, request, rotate, start};
use crate::harness::{Sse, until};

#[tokio::test(start_paused = true)]
async fn a_call_is_translated_both_ways() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, call("a", "t").with_meta("x/y", json!([1])));
    list_tools(&mut server, r#"{"name":"t"}"#).await;
    let (id, line) = server.request().await;
    assert_eq!(
        line,
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"_meta":{{"x/y":[1]}},"arguments":{{"a":1}},"name":"t"}}}}"#
        )
    );
    server.result(id, r#"{"content":[],"structuredContent":[1.0]}"#).await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":"a","result":{"content":[],"structuredContent":[1.0],"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"1"}}}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn discover_is_answered_from_the_handshake() {
    let (bridge, _server) = bridge().await;
    let reply = post(&bridge, &config(), &request(1, "server/discover", json!({}), json!({}))).await;
    let result = reply.error().await["result"].clone();
    assert_eq!(result["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(result["instructions"], "i");
    assert_eq!(result["capabilities"]["tools"], json!({ "listChanged": true }));
    assert!(INITIALIZED.contains("protocolVersion") && result.get("protocolVersion").is_none());
}

#[tokio::test(start_paused = true)]
async fn equal_ids_run_side_by_side() {
    let (bridge, mut server) = bridge().await;
    let one = start(&bridge, request(7, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    let (first, _) = server.request().await;
    let other = start(&bridge, request(7, "prompts/list", json!({}), json!({})));
    let (second, _) = server.request().await;
    server.result(second, r#"{"prompts":[2]}"#).await;
    server.result(first, r#"{"prompts":[1]}"#).await;
    assert_eq!(json_of(one).await["result"]["prompts"], json!([1]));
    assert_eq!(json_of(other).await["result"]["prompts"], json!([2]));
}

#[tokio::test(start_paused = true)]
async fn progress_begins_an_event_stream_without_event_ids() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, call(1, "t").with_meta("progressToken", "mine"));
    list_tools(&mut server, "").await;
    let (id, line) = server.request().await;
    assert!(line.contains(&format!(r#""progressToken":{id}"#)), "{line}");
    let progress = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{id},"progress":1}}}}"#
    );
    server.write(&progress).await;
    server.result(id, "{}").await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(
        reply.message().await,
        progress.replace(&format!("n\":{id}"), "n\":\"mine\"")
    );
    assert!(reply.message().await.contains("complete"));
    assert_eq!((reply.next().await, reply.last_id), (Sse::End, None));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_becomes_an_event_stream_after_ten_seconds() {
    let (bridge, mut server) = bridge().await;
    let begun = tokio::time::Instant::now();
    let reply = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, _) = server.request().await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(begun.elapsed().as_secs(), 10);
    server.result(id, r#"{"prompts":[]}"#).await;
    assert!(reply.message().await.contains(r#""prompts":[]"#));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, call(1, "t"));
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    reply.abort();
    let line = server.line().await;
    assert!(
        line.contains("notifications/cancelled") && line.contains(&format!(r#""requestId":{id}"#)),
        "{line}"
    );
    assert_eq!(bridge.in_flight(1), 1, "the response may still come");
    server.result(id, "{}").await;
    until(|| bridge.in_flight(1) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn log_messages_reach_the_request_that_wants_them() {
    let (bridge, mut server) = bridge().await;
    let silent = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    let (first, _) = server.request().await;
    let level = "io.modelcontextprotocol/logLevel";
    let verbose = start(
        &bridge,
        request(2, "prompts/list", json!({}), json!({})).with_meta(level, "info"),
    );
    let (setting, line) = server.request().await;
    assert!(
        line.contains(r#""method":"logging/setLevel","params":{"level":"info"}"#),
        "{line}"
    );
    server.result(setting, "{}").await;
    let (second, _) = server.request().await;
    for level in ["debug", "info"] {
        let log =
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": level, "data": level } });
        server.write(&log.to_string()).await;
    }
    server.result(first, r#"{"prompts":[]}"#).await;
    assert_eq!(json_of(silent).await["id"], 1, "no event stream");
    server.result(second, r#"{"prompts":[]}"#).await;
    let mut verbose = verbose.await.expect("no panic");
    assert!(verbose.message().await.contains(r#""data":"info""#));
    assert!(verbose.message().await.contains("complete"));
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_at_the_next_server() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    server.request().await;
    drop(server);
    until(|| bridge.owner.wanted() == [1]).await;
    let (_link, mut server) = rotate(&bridge, 2).await;
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, line) = server.request().await;
    assert!(line.contains("prompts/list"), "{line}");
    server.result(id, r#"{"prompts":[3]}"#).await;
    assert_eq!(json_of(reply).await["result"]["prompts"], json!([3]));
}

#[tokio::test(start_paused = true)]
async fn mirrored_arguments_are_checked_and_the_list_is_read_once() {
    let (bridge, mut server) = bridge().await;
    let schema = r#"{"type":"object","properties":{"a":{"type":"integer","x-mcp-header":"A"}}}"#;
    let tools = format!(r#"{{"name":"t","inputSchema":{schema}}}"#);
    let without = start(&bridge, call(1, "t"));
    list_tools(&mut server, &tools).await;
    let without = without.await.expect("no panic");
    assert_eq!(without.status, 400);
    assert_eq!(without.error().await["error"]["code"], -32020);
    let with = start(&bridge, call(2, "t").with_header("mcp-param-a", Some("1")));
    let (id, line) = server.request().await;
    assert!(line.contains("tools/call"), "{line}");
    server.result(id, "{}").await;
    assert_eq!(json_of(with).await["id"], 2);
    // A changed list is read again.
    server
        .write(r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#)
        .await;
    let again = start(&bridge, call(3, "t"));
    let (id, line) = server.request().await;
    assert!(line.contains("tools/list"), "{line}");
    server.result(id, r#"{"tools":[]}"#).await;
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    assert_eq!(json_of(again).await["id"], 3);
}

#[tokio::test(start_paused = true)]
async fn requests_beyond_the_limit_are_rejected() {
    let config = bridge::Config {
        max_in_flight: 1,
        ..config()
    };
    let (bridge, mut server) = bridge_with(config).await;
    let _first = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
    assert!(server.line().await.contains("notifications/initialized"));
    server.request().await;
    let second = start(&bridge, request(2, "prompts/list", json!({}), json!({})));
    let second = second.await.expect("no panic");
    assert_eq!((second.status.as_u16(), second.header("retry-after")), (429, Some("1")));
    assert_eq!(second.error().await["id"], 2);
    assert!(server.receives_nothing(Duration::from_secs(1)).await);
}
