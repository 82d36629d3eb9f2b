//! The drain: requests in flight finish, new ones are rejected, and unfinished ones are cut.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Harness, Received, TIMEOUT, config, get, read_to_end, valid_post};

#[tokio::test]
async fn request_in_flight_finishes_before_the_sessions_end() {
    let mut broker = Harness::start().await;
    let mut client = broker.h2().await;
    let mut request = valid_post("slow");
    *request.uri_mut() = "http://mcp.example/mcp".parse().expect("a URL");
    request.headers_mut().remove("host");
    let answer = client.send_request(request);
    let (answer, ()) = tokio::join!(answer, async {
        broker.mcp.begun.notified().await;
        broker.shutdown.cancel();
        // The listener is closed.
        let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
        timeout(TIMEOUT, refused).await.expect("the listener closes");
        assert!(!broker.calls.entries().contains(&"drain".to_owned()));
        broker.mcp.release.send_replace(true);
    });
    let response = Received::of(answer.expect("an answer")).await;
    assert_eq!(response.body, "POST /mcp 4 from the caller");
    broker.ended().await;
    assert_eq!(broker.calls.entries().last().expect("an entry"), "drain");
}

#[tokio::test]
async fn listening_streams_end_cleanly_and_do_not_delay_the_drain() {
    let mut broker = Harness::start().await;
    let request = "GET /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\r\n";
    let mut stream = broker.raw(request.as_bytes()).await;
    broker.mcp.begun.notified().await;
    broker.shutdown.cancel();
    let response = read_to_end(&mut stream).await;
    assert!(
        response.starts_with("HTTP/1.1 200") && response.ends_with("0\r\n\r\n"),
        "{response}"
    );
    broker.ended().await;
}

#[tokio::test]
async fn drain_waits_for_a_response_stream() {
    let mut broker = Harness::start().await;
    let answer = broker.answer(valid_post("stream")).await;
    broker.shutdown.cancel();
    let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
    timeout(TIMEOUT, refused).await.expect("the listener closes");
    assert!(!broker.calls.entries().contains(&"drain".to_owned()));
    broker.mcp.end_streams();
    assert_eq!(Received::of(answer).await.body, "");
    broker.ended().await;
}

#[tokio::test]
async fn drain_serves_only_requests_of_accepted_connections() {
    let mut broker = Harness::start().await;
    // Half-sent requests and a silent connection when the drain begins.
    let mut mcp = broker
        .raw(b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n")
        .await;
    let mut silent = broker.raw(b"").await;
    let mut ready = broker.raw(b"GET /readyz HTTP/1.1\r\n").await;
    // These connections are accepted, since a later one is served.
    assert_eq!(broker.send(get("/readyz")).await.status, 200);
    let slow = broker.raw(
        b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nslow",
    );
    let slow = slow.await;
    broker.mcp.begun.notified().await;
    broker.shutdown.cancel();
    let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
    timeout(TIMEOUT, refused).await.expect("the listener closes");
    let rest_of_it = b"content-type: application/json\r\ncontent-length: 4\r\n\r\nquick";
    mcp.write_all(&rest_of_it[..rest_of_it.len() - 1])
        .await
        .expect("the connection is still there");
    silent
        .write_all(b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nmore")
        .await
        .expect("the connection is still there");
    for stream in [&mut mcp, &mut silent] {
        let response = read_to_end(stream).await.to_lowercase();
        assert!(response.starts_with("http/1.1 200"), "{response}");
        assert!(response.contains("connection: close"), "{response}");
    }
    ready.write_all(b"\r\n").await.expect("the connection is still there");
    assert!(read_to_end(&mut ready).await.starts_with("HTTP/1.1 503"));
    broker.mcp.release.send_replace(true);
    drop(slow);
    broker.ended().await;
}

#[tokio::test]
async fn busy_connection_gets_one_more_request_and_connection_close() {
    let mut broker = Harness::start().await;
    let request = b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nmore";
    let mut kept = broker.raw(request).await;
    let mut response = [0; 12];
    kept.read_exact(&mut response).await.expect("an answer");
    assert_eq!(&response, b"HTTP/1.1 200");
    broker.shutdown.cancel();
    kept.write_all(request).await.expect("the connection is still there");
    let response = read_to_end(&mut kept).await.to_lowercase();
    let (_first, second) = response.split_once("http/1.1 200").expect("the second answer");
    assert!(second.contains("connection: close"), "{response}");
    broker.ended().await;
}

#[tokio::test]
async fn request_in_the_socket_is_served_when_a_drain_begins_on_an_idle_connection() {
    let mut broker = Harness::start().await;
    let request = b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nmore";
    let mut kept = broker.raw(request).await;
    let mut response = Vec::new();
    while !String::from_utf8_lossy(&response).contains("from the caller") {
        assert_ne!(kept.read_buf(&mut response).await.expect("an answer"), 0);
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    // No other task runs between these two calls, so the broker notices the shutdown first.
    assert_eq!(
        kept.try_write(request).expect("the connection is still there"),
        request.len()
    );
    broker.shutdown.cancel();
    let response = read_to_end(&mut kept).await;
    assert!(response.contains("HTTP/1.1 200"), "{response:?}");
    broker.ended().await;
}

#[tokio::test]
async fn unfinished_requests_are_cut_at_the_deadline() {
    let mut config = config("https://mcp.example");
    config.drain_deadline = Duration::from_millis(50);
    config.stop_deadline = Duration::from_millis(50);
    let mut broker = Harness::with(config).await;
    let mut stuck = broker
        .raw(
            b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
              content-type: application/json\r\ncontent-length: 4\r\n\r\nslow",
        )
        .await;
    broker.mcp.begun.notified().await;
    broker.shutdown.cancel();
    broker.ended().await;
    assert_eq!(broker.calls.entries().last().expect("an entry"), "drain");
    let mut byte = [0; 1];
    assert!(
        matches!(stuck.read(&mut byte).await, Ok(0) | Err(_)),
        "the connection is gone"
    );
    assert_eq!(broker.mcp.release.receiver_count(), 0, "and so is the request");
}

#[tokio::test]
async fn idle_connections_do_not_delay_the_drain() {
    let mut broker = Harness::start().await;
    let _silent = broker.raw(b"").await;
    let mut kept = broker.raw(b"GET /readyz HTTP/1.1\r\n\r\n").await;
    let mut head = [0; 12];
    kept.read_exact(&mut head).await.expect("an answer");
    let _h2 = broker.h2().await;
    broker.shutdown.cancel();
    broker.ended().await;
}
