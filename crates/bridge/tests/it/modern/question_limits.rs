//! Questions at the limits: of parked calls, of kept answers, of capabilities and of servers.

use bridge::MemoryBudget;
use serde_json::json;

use super::{accept, ask, bridge, bridge_with, call, config, json_of, list_tools, park, request, retry, rotate, start};
use crate::harness::until;

#[tokio::test(start_paused = true)]
async fn a_question_that_is_withdrawn_at_once_ends_no_parked_call() {
    let config = bridge::Config {
        max_parked: 1,
        ..config()
    };
    let (bridge, mut server) = bridge_with(config).await;
    let first = call(1, "t");
    let (parked, asked) = park(&bridge, &mut server, &first).await;
    let other = start(&bridge, call(2, "u"));
    let (running, _) = server.request().await;
    ask(&mut server, 6, "?", None).await;
    server
        .write(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":6}}"#)
        .await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    server.result(running, "{}").await;
    assert_eq!(json_of(other).await["result"]["resultType"], "complete");
    let reply = start(
        &bridge,
        retry(&first, 3, &asked, json!({ "elicitation-1": accept("1") })),
    );
    assert!(server.line().await.contains(r#""id":5,"result""#));
    server.result(parked, "{}").await;
    assert_eq!(json_of(reply).await["result"]["resultType"], "complete");
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_question_are_bounded_and_counted() {
    let config = bridge::Config {
        memory: MemoryBudget::new(1 << 30),
        ..config()
    };
    let memory = config.memory.clone();
    let (bridge, mut server) = bridge_with(config).await;
    let junk = accept(&"x".repeat(100_000));
    let first = call(1, "t").with_param("inputResponses", json!({ "a": junk, "b": junk, "c": junk, "d": junk }));
    let reply = start(&bridge, first.clone());
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    until(|| memory.used() > 0).await;
    assert!((200_000..300_000).contains(&memory.used()), "{}", memory.used());
    ask(&mut server, 5, "?", None).await;
    let mut asked = json_of(reply).await;
    for round in 0..4 {
        let again = retry(&call(1, "t"), round, &asked, json!({ format!("{round}"): junk }));
        asked = json_of(start(&bridge, again)).await;
    }
    assert!(memory.used() < 300_000, "{}", memory.used());
    server.result(id, "{}").await;
    let done = retry(&call(1, "t"), 9, &asked, json!({ "elicitation-1": accept("1") }));
    assert_eq!(json_of(start(&bridge, done)).await["result"]["resultType"], "complete");
    assert!(memory.used() < 10_000, "{}", memory.used());
}

#[tokio::test(start_paused = true)]
async fn a_server_names_no_call_of_another_server() {
    let (bridge, mut old) = bridge().await;
    let slow = start(&bridge, call(1, "slow"));
    list_tools(&mut old, "").await;
    let (slow_id, _) = old.request().await;
    let (_link, mut new) = rotate(&bridge, 2).await;
    assert!(new.line().await.contains("notifications/initialized"));
    let (probe, _) = new.request().await;
    new.result(probe, r#"{"tools":[]}"#).await;
    let params =
        json!({ "message": "?", "requestedSchema": {}, "_meta": { "forgejo-mcp-broker/call": slow_id.to_string() } });
    let question = json!({ "jsonrpc": "2.0", "id": 5, "method": "elicitation/create", "params": params });
    new.write(&question.to_string()).await;
    assert!(new.line().await.contains(r#""id":5,"error""#), "no call is asked about");
    old.result(slow_id, r#"{"content":["slow"]}"#).await;
    assert_eq!(json_of(slow).await["result"]["content"], json!(["slow"]));
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_not_asked_for_what_it_does_not_declare() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let (id, asked) = park(&bridge, &mut server, &first).await;
    let again = retry(&first, 2, &asked, json!({}));
    let again = again.with_meta("io.modelcontextprotocol/clientCapabilities", json!({ "sampling": {} }));
    let reply = start(&bridge, again);
    assert!(server.line().await.contains(r#""id":5,"error":{"code":-32601"#));
    server.result(id, r#"{"isError":true}"#).await;
    let error = json_of(reply).await["error"].clone();
    assert_eq!(
        (error["code"].as_i64(), &error["data"]["requiredCapabilities"]),
        (Some(-32021), &json!({ "elicitation": {} }))
    );
}

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

#[tokio::test(start_paused = true)]
async fn a_key_that_a_server_names_is_not_given_to_another_question() {
    let (bridge, mut server) = bridge().await;
    let first = call(1, "t");
    let reply = start(&bridge, first.clone());
    list_tools(&mut server, "").await;
    server.request().await;
    ask(&mut server, 5, "named", Some("elicitation-2")).await;
    ask(&mut server, 6, "unnamed", None).await;
    let reply = reply.await.expect("no panic").json().await;
    assert_eq!(reply.matches(r#""elicitation-2":"#).count(), 1, "{reply}");
    let asked: serde_json::Value = serde_json::from_str(&reply).expect("JSON");
    let requests = &asked["result"]["inputRequests"];
    assert_eq!(requests["elicitation-2"]["params"]["message"], "named");
    assert_eq!(requests["elicitation-3"]["params"]["message"], "unnamed");
}
