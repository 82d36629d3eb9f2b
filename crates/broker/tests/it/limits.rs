//! Limits of bodies, heads and connections.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::harness::{Harness, config, get, read_to_end, valid_post};

const HEAD: &str = "POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
                    content-type: application/json\r\n";

async fn broker_with_small_limits() -> Harness {
    let mut config = config("https://mcp.example");
    config.limits.mcp_body = 100;
    config.limits.oauth_body = 10;
    config.limits.body_timeout = Duration::from_millis(100);
    config.limits.head_timeout = Duration::from_millis(100);
    config.limits.head_bytes = 8192;
    config.limits.head_fields = 20;
    Harness::with(config).await
}

#[tokio::test]
async fn body_at_the_limit_is_accepted() {
    let broker = broker_with_small_limits().await;
    let body = "x".repeat(100);
    assert_eq!(
        broker.send(valid_post(&body)).await.body,
        "POST /mcp 100 from the caller"
    );
}

#[tokio::test]
async fn content_length_over_the_limit_is_rejected_before_the_body_arrives() {
    let broker = broker_with_small_limits().await;
    let mut stream = broker
        .raw(format!("{HEAD}content-length: 101\r\n\r\n").as_bytes())
        .await;
    let response = read_to_end(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
    assert!(response.contains(r#""error""#), "{response}");
}

#[tokio::test]
async fn chunked_body_over_the_limit_is_rejected() {
    let broker = broker_with_small_limits().await;
    let chunk = format!("65\r\n{}\r\n", "x".repeat(0x65));
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}");
    let mut stream = broker.raw(head.as_bytes()).await;
    let response = read_to_end(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 413"), "{response}");
}

#[tokio::test]
async fn oauth_bodies_have_a_separate_limit() {
    let broker = broker_with_small_limits().await;
    let mut request = get("/oauth/token");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = "x".repeat(11).into();
    let response = broker.send(request).await;
    assert_eq!(
        (response.status, response.header("content-type")),
        (413, Some("text/plain; charset=utf-8"))
    );
    assert!(broker.calls.entries().is_empty());
}

#[tokio::test]
async fn slow_body_times_out() {
    let broker = broker_with_small_limits().await;
    let mut stream = broker
        .raw(format!("{HEAD}content-length: 50\r\n\r\nxx").as_bytes())
        .await;
    let response = read_to_end(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert_eq!(broker.calls.entries(), ["authenticate"], "the service never sees it");
}

#[tokio::test]
async fn slow_head_closes_the_connection() {
    let broker = broker_with_small_limits().await;
    let mut stream = broker.raw(b"GET /healthz HTTP/1.1\r\nhost: mcp").await;
    let response = read_to_end(&mut stream).await;
    assert!(!response.contains("200"), "{response}");
}

#[tokio::test]
async fn large_head_is_rejected() {
    let broker = broker_with_small_limits().await;
    let large = format!("GET / HTTP/1.1\r\nhost: mcp.example\r\nx: {}\r\n\r\n", "y".repeat(9000));
    let mut stream = broker.raw(large.as_bytes()).await;
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 431"));
    let fields = "x: y\r\n".repeat(21);
    let many = format!("GET / HTTP/1.1\r\nhost: mcp.example\r\n{fields}\r\n");
    let mut stream = broker.raw(many.as_bytes()).await;
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn silent_connection_is_closed() {
    let mut config = config("https://mcp.example");
    config.limits.first_byte_timeout = Duration::from_millis(50);
    config.limits.idle_timeout = Duration::from_millis(50);
    let broker = Harness::with(config).await;
    let mut silent = broker.raw(b"").await;
    assert_eq!(read_to_end(&mut silent).await, "");
    // Half of the HTTP/2 preface, so the version is undecided.
    let mut undecided = broker.raw(b"PRI * HTTP/2.0\r\n").await;
    read_to_end(&mut undecided).await;
}

#[tokio::test]
async fn connection_with_an_open_stream_is_not_idle() {
    let mut config = config("https://mcp.example");
    config.limits.first_byte_timeout = Duration::from_millis(50);
    config.limits.idle_timeout = Duration::from_millis(50);
    let broker = Harness::with(config).await;
    let request = "GET /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\r\n";
    let mut streaming = broker.raw(request.as_bytes()).await;
    broker.mcp.begun.notified().await;
    // Later connections that are idle are closed; this one is not.
    for _ in 0..3 {
        let mut silent = broker.raw(b"").await;
        read_to_end(&mut silent).await;
    }
    let mut head = [0; 12];
    streaming.read_exact(&mut head).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200");
    broker.mcp.end_streams();
    assert!(
        read_to_end(&mut streaming).await.ends_with("0\r\n\r\n"),
        "the stream ends cleanly"
    );
}

#[tokio::test]
async fn silent_connections_make_room_for_requests() {
    let mut config = config("https://mcp.example");
    config.limits.connections = 4;
    let broker = Harness::with(config).await;
    let kept = b"GET /readyz HTTP/1.1\r\n\r\n";
    let mut idle = broker.raw(kept).await;
    let mut head = [0; 12];
    idle.read_exact(&mut head).await.expect("an answer");
    let mut flood = Vec::new();
    for round in 0..10 {
        for _ in 0..4 {
            flood.push(broker.raw(b"").await);
            flood.push(broker.raw(b"GET /healthz HTTP/1.1\r\nhost").await);
        }
        assert_eq!(broker.send(get("/healthz")).await.status, 200, "{round}");
        assert_eq!(broker.send(valid_post("{}")).await.status, 200, "{round}");
    }
    for mut silent in flood.drain(..70).chain([idle]) {
        read_to_end(&mut silent).await;
    }
}

#[tokio::test]
async fn health_is_served_when_all_connections_are_busy() {
    let mut config = config("https://mcp.example");
    config.limits.connections = 2;
    let broker = Harness::with(config).await;
    let slow = format!("{HEAD}content-length: 4\r\n\r\nslow");
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(broker.raw(slow.as_bytes()).await);
        broker.mcp.begun.notified().await;
    }
    for _ in 0..40 {
        assert_eq!(broker.send(get("/healthz")).await.status, 200);
        assert_eq!(broker.send(get("/readyz")).await.status, 200);
        let refused = broker.send(valid_post("{}")).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    }
    broker.mcp.release.send_replace(true);
    for mut stream in busy {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200", "a busy connection is never closed for another");
    }
    assert_eq!(broker.send(valid_post("{}")).await.status, 200);
}
