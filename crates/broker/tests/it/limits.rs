//! How much, how many, how long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Harness, PATIENCE, config, get, good, rest};

const HEAD: &str = "POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
                    content-type: application/json\r\n";

async fn small() -> Harness {
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
async fn a_body_up_to_the_limit_passes() {
    let broker = small().await;
    let body = "x".repeat(100);
    assert_eq!(broker.send(good(&body)).await.body, "POST /mcp 100 from the caller");
}

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let broker = small().await;
    let mut stream = broker
        .raw(format!("{HEAD}content-length: 101\r\n\r\n").as_bytes())
        .await;
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    assert!(said.contains(r#""error""#), "{said}");
}

#[tokio::test]
async fn a_body_that_turns_out_too_large_is_refused() {
    let broker = small().await;
    let chunk = format!("65\r\n{}\r\n", "x".repeat(0x65));
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n{chunk}");
    let mut stream = broker.raw(head.as_bytes()).await;
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
}

#[tokio::test]
async fn the_authoritys_bodies_have_a_limit_of_their_own() {
    let broker = small().await;
    let mut request = get("/oauth/token");
    *request.method_mut() = http::Method::POST;
    *request.body_mut() = "x".repeat(11).into();
    let said = broker.send(request).await;
    assert_eq!(
        (said.status, said.header("content-type")),
        (413, Some("text/plain; charset=utf-8"))
    );
    assert!(broker.journal.entries().is_empty());
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_given_up() {
    let broker = small().await;
    let mut stream = broker
        .raw(format!("{HEAD}content-length: 50\r\n\r\nxx").as_bytes())
        .await;
    let said = rest(&mut stream).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert_eq!(broker.journal.entries(), ["authenticate"], "the service never sees it");
}

#[tokio::test]
async fn a_head_that_takes_too_long_ends_the_connection() {
    let broker = small().await;
    let mut stream = broker.raw(b"GET /healthz HTTP/1.1\r\nhost: mcp").await;
    let said = rest(&mut stream).await;
    assert!(!said.contains("200"), "{said}");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let broker = small().await;
    let large = format!("GET / HTTP/1.1\r\nhost: mcp.example\r\nx: {}\r\n\r\n", "y".repeat(9000));
    let mut stream = broker.raw(large.as_bytes()).await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));
    let fields = "x: y\r\n".repeat(21);
    let many = format!("GET / HTTP/1.1\r\nhost: mcp.example\r\n{fields}\r\n");
    let mut stream = broker.raw(many.as_bytes()).await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let mut config = config("https://mcp.example");
    config.limits.idle_timeout = Duration::from_millis(50);
    let broker = Harness::with(config).await;
    let mut silent = broker.raw(b"").await;
    assert_eq!(rest(&mut silent).await, "");
    // Half of what HTTP/2 begins with: neither version yet.
    let mut undecided = broker.raw(b"PRI * HTTP/2.0\r\n").await;
    rest(&mut undecided).await;
}

#[tokio::test]
async fn a_connection_with_an_open_stream_is_not_idle() {
    let mut config = config("https://mcp.example");
    config.limits.idle_timeout = Duration::from_millis(50);
    let broker = Harness::with(config).await;
    let request = "GET /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\r\n";
    let mut streaming = broker.raw(request.as_bytes()).await;
    broker.mcp.begun.notified().await;
    // Idle connections that began later are closed by now; this one is not.
    for _ in 0..3 {
        let mut silent = broker.raw(b"").await;
        rest(&mut silent).await;
    }
    let mut head = [0; 12];
    streaming.read_exact(&mut head).await.expect("a head");
    assert_eq!(&head, b"HTTP/1.1 200");
    broker.mcp.end_streams();
    assert!(
        rest(&mut streaming).await.ends_with("0\r\n\r\n"),
        "the stream ends cleanly"
    );
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_room() {
    let mut config = config("https://mcp.example");
    config.limits.connections = 1;
    let broker = Harness::with(config).await;
    let ask = b"GET /readyz HTTP/1.1\r\nconnection: close\r\n\r\n";
    let mut first = broker.raw(b"").await;
    let mut second = broker.raw(ask).await;
    let mut byte = [0; 1];
    let early = tokio::time::timeout(Duration::from_millis(100), second.read(&mut byte)).await;
    assert!(early.is_err(), "there is no room yet");
    first.write_all(ask).await.expect("a write");
    assert!(rest(&mut first).await.starts_with("HTTP/1.1 200"));
    let said = tokio::time::timeout(PATIENCE, rest(&mut second)).await.expect("room");
    assert!(said.starts_with("HTTP/1.1 200"));
}
