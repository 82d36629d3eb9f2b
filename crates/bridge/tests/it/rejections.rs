//! Messages that the bridge rejects, and its answers.

use std::time::Duration;

use bridge::Config;
use bytes::Bytes;
use http::{Method, Request};

use crate::harness::{Bridge, Kind, bridge, bridge_with, call, get, initialize, post, send, start_post};

async fn with_version(bridge: &Bridge, method: Method, version: &str, body: &str) -> crate::harness::Reply {
    let request = Request::builder()
        .method(method)
        .header("MCP-Protocol-Version", version);
    send(
        bridge,
        request
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .expect("a request"),
    )
    .await
}

#[tokio::test(start_paused = true)]
async fn an_invalid_body_is_rejected_with_the_reason() {
    let (bridge, mut server) = bridge().await;
    for (body, code, id) in [
        (&b""[..], -32700, "none"),
        (b"{", -32700, "none"),
        (b"\xff", -32700, "none"),
        (b"hello", -32700, "none"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}", -32700, "none"),
        (b"3", -32600, "none"),
        (b"{}", -32600, "none"),
        (b"[{\"jsonrpc\":\"2.0\",\"method\":\"n\"}]", -32600, "none"),
        (b"{\"id\":7,\"method\":\"m\"}", -32600, "7"),
        (b"{\"jsonrpc\":\"1.0\",\"id\":\"s\",\"method\":\"m\"}", -32600, "\"s\""),
        (b"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"m\"}", -32600, "none"),
        (b"{\"jsonrpc\":\"2.0\",\"id\":[1],\"method\":\"m\"}", -32600, "none"),
        (
            b"{\"jsonrpc\":\"2.0\",\"id\":1,\"Id\":2,\"method\":\"m\"}",
            -32600,
            "none",
        ),
        (b"{\"jsonrpc\":\"2.0\",\"id\":8}", -32600, "8"),
    ] {
        let reply = post(&bridge, body.to_vec()).await;
        assert_eq!(reply.status, 400);
        let error = reply.error().await;
        assert_eq!(error["error"]["code"], code, "{}", String::from_utf8_lossy(body));
        assert_eq!(
            error.get("id").map_or("none".to_owned(), ToString::to_string),
            id,
            "{}",
            String::from_utf8_lossy(body)
        );
    }
    let batch = post(&bridge, "[]").await.error().await;
    assert!(
        batch["error"]["message"]
            .as_str()
            .expect("text")
            .contains("batches are not supported")
    );
    assert!(server.receives_nothing(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn other_methods_are_rejected_with_allow() {
    let (bridge, _server) = bridge().await;
    for method in [Method::PUT, Method::HEAD, Method::OPTIONS] {
        let reply = send(
            &bridge,
            Request::builder().method(method).body(Bytes::new()).expect("a request"),
        )
        .await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("allow")),
            (405, Some("GET, POST, DELETE"))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_version_is_rejected_with_the_supported_ones() {
    let (bridge, _server) = bridge().await;
    let notification = r#"{"jsonrpc":"2.0","method":"n"}"#;
    for version in ["2025-03-26", "2025-06-18", "2025-11-25", " 2025-11-25 "] {
        assert_eq!(
            with_version(&bridge, Method::POST, version, notification).await.status,
            202
        );
        assert_eq!(with_version(&bridge, Method::GET, version, "").await.status, 200);
    }
    let reply = with_version(&bridge, Method::DELETE, "2025-11-25", "").await;
    assert_eq!((reply.kind, reply.status.as_u16()), (Kind::End, 204));
    for version in ["2024-11-05", "2026-07-28", "1", ""] {
        assert_eq!(
            with_version(&bridge, Method::POST, version, notification).await.status,
            400
        );
        assert_eq!(with_version(&bridge, Method::GET, version, "").await.status, 400);
        let reply = with_version(&bridge, Method::DELETE, version, "").await;
        assert_eq!((reply.kind, reply.status.as_u16()), (Kind::Answer, 400));
        let reply = with_version(&bridge, Method::POST, version, &call(5)).await;
        assert_eq!(reply.status, 400);
        let error = reply.error().await;
        assert_eq!(error["id"], 5);
        assert_eq!(
            error["error"]["data"]["supported"],
            serde_json::json!(["2025-03-26", "2025-06-18", "2025-11-25"])
        );
        assert_eq!(error["error"]["data"]["requested"], version);
    }
}

#[tokio::test(start_paused = true)]
async fn the_negotiated_version_is_supported_and_initialize_ignores_the_header() {
    let (bridge, mut server) = bridge().await;
    let request = Request::post("/").header("mcp-protocol-version", "2019-01-01");
    let request = request.body(Bytes::from(initialize("2024-11-05"))).expect("a request");
    let (reply, ()) = tokio::join!(send(&bridge, request), async {
        let (id, _) = server.request().await;
        server.result(id, r#"{"protocolVersion":"2024-11-05"}"#).await;
    });
    assert_eq!(reply.status, 200);
    let notification = r#"{"jsonrpc":"2.0","method":"n"}"#;
    assert_eq!(
        with_version(&bridge, Method::POST, "2024-11-05", notification)
            .await
            .status,
        202
    );
}

#[tokio::test(start_paused = true)]
async fn an_id_in_flight_is_a_conflict() {
    let (bridge, mut server) = bridge().await;
    let first = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"a","method":"m"}"#);
    let (id, _) = server.request().await;
    let second = post(&bridge, r#"{"jsonrpc":"2.0","id":"\u0061","method":"m"}"#).await;
    assert_eq!(second.status, 409);
    assert!(second.json().await.contains(r#""id":"\u0061","#));
    server.result(id, "{}").await;
    assert_eq!(first.await.expect("no panic").status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_request_beyond_the_limit_is_rejected_until_another_completes() {
    let config = Config {
        max_in_flight: 2,
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let first = start_post(&bridge, call(1));
    let (number, _) = server.request().await;
    let _second = start_post(&bridge, call(2));
    server.request().await;
    let third = post(&bridge, call(3)).await;
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (429, Some("1")));
    assert_eq!(third.error().await["id"], 3);
    server.result(number, "{}").await;
    first.await.expect("no panic");
    let _fourth = start_post(&bridge, call(4));
    assert!(server.line().await.contains("tools/call"));
}

#[tokio::test(start_paused = true)]
async fn a_listener_beyond_the_limit_ends_the_oldest_cleanly() {
    let config = Config {
        max_listeners: 2,
        ..Config::default()
    };
    let (bridge, _server) = bridge_with(config, 1 << 16).await;
    let mut first = get(&bridge).await;
    let _second = get(&bridge).await;
    let third = get(&bridge).await;
    assert_eq!(third.status, 200);
    assert_eq!(first.messages().await, [""; 0]);
}
