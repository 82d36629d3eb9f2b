//! Requests that are not accepted, and errors of servers.

use http::Request;
use serde_json::{Value, json};

use super::{ModernRequest, bridge, call, config, list_tools, post, request, start};
use crate::harness::Kind;

async fn rejected(request: &ModernRequest) -> (u16, Value) {
    let (bridge, _server) = bridge().await;
    let reply = post(&bridge, &config(), request).await;
    assert_eq!(reply.kind, Kind::Answer);
    (reply.status.as_u16(), reply.error().await)
}

#[tokio::test(start_paused = true)]
async fn each_difference_of_header_and_body_is_a_mismatch() {
    for (name, value) in [
        ("mcp-protocol-version", None),
        ("mcp-protocol-version", Some("2025-11-25")),
        ("mcp-method", None),
        ("mcp-method", Some("tools/list")),
        ("mcp-method", Some("Tools/call")),
        ("mcp-name", None),
        ("mcp-name", Some("u")),
        ("mcp-name", Some("=?base64?dQ==?=")),
        ("mcp-name", Some("=?base64?dA?=")),
    ] {
        let (status, body) = rejected(&call("x", "t").with_header(name, value)).await;
        assert_eq!(
            (status, body["error"]["code"].as_i64()),
            (400, Some(-32020)),
            "{name} {value:?}"
        );
        assert_eq!(body["id"], "x");
    }
}

#[tokio::test(start_paused = true)]
async fn removed_and_unknown_methods_are_not_found() {
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
        "x",
    ] {
        let (status, body) = rejected(&request(1, method, json!({}), json!({}))).await;
        assert_eq!(
            (status, body["error"]["code"].as_i64()),
            (404, Some(-32601)),
            "{method}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_of_a_client_has_a_limit() {
    for name in ["clientCapabilities", "clientInfo"] {
        let long = json!({ "experimental": { "x": { "y": "z".repeat(20_000) } } });
        let request = call(1, "t").with_meta(&format!("io.modelcontextprotocol/{name}"), long);
        let (status, body) = rejected(&request).await;
        assert_eq!((status, body["error"]["code"].as_i64()), (400, Some(-32602)), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_server_have_codes_and_status_of_this_era() {
    let (bridge, mut server) = bridge().await;
    let reply = start(
        &bridge,
        request(1, "resources/read", json!({ "uri": "a:b" }), json!({})),
    );
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, _) = server.request().await;
    server.error(id, -32002).await;
    let reply = reply.await.expect("no panic");
    assert_eq!(reply.status, 200);
    let error = reply.error().await["error"].clone();
    assert_eq!(
        (error["code"].as_i64(), &error["data"]),
        (Some(-32602), &json!({ "uri": "a:b" }))
    );
    for (code, status, translated) in [(-32601, 404, -32601), (-32021, 200, -32603), (-32602, 200, -32602)] {
        let reply = start(&bridge, request(1, "prompts/list", json!({}), json!({})));
        let (id, _) = server.request().await;
        server.error(id, code).await;
        let reply = reply.await.expect("no panic");
        assert_eq!(reply.status, status, "{code}");
        assert_eq!(reply.error().await["error"]["code"], translated);
    }
}

#[tokio::test(start_paused = true)]
async fn other_methods_and_messages_of_clients_have_no_place() {
    let send = |method: &str, body: &str| {
        let request = Request::builder().method(method).uri("/mcp");
        let request = request.header("mcp-protocol-version", "2026-07-28");
        let mut request = request.body(bytes::Bytes::from(body.to_owned())).expect("a request");
        let bridge::Destination::Reply(response) = bridge::route(&mut request, "grant", &config()) else {
            panic!("the request belongs nowhere");
        };
        response.status().as_u16()
    };
    assert_eq!(send("GET", ""), 405);
    assert_eq!(send("DELETE", ""), 405);
    assert_eq!(send("POST", "{"), 400);
    assert_eq!(send("POST", r#"{"jsonrpc":"2.0","method":"notifications/x"}"#), 202);
    assert_eq!(send("POST", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), 400);
    assert_eq!(send("POST", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#), 400);
}

#[tokio::test(start_paused = true)]
async fn a_question_without_its_capability_fails_its_call() {
    let (bridge, mut server) = bridge().await;
    let reply = start(&bridge, request(1, "tools/call", json!({ "name": "t" }), json!({})));
    list_tools(&mut server, "").await;
    let (id, _) = server.request().await;
    server
        .write(r#"{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{}}"#)
        .await;
    let refused = server.line().await;
    assert!(refused.contains(r#""id":5,"error":{"code":-32601"#), "{refused}");
    server.result(id, r#"{"content":[],"isError":true}"#).await;
    let reply = reply.await.expect("no panic");
    assert_eq!(reply.status, 400);
    let error = reply.error().await["error"].clone();
    assert_eq!(
        (error["code"].as_i64(), &error["data"]["requiredCapabilities"]),
        (Some(-32021), &json!({ "sampling": {} }))
    );
}
