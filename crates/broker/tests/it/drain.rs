//! The end: what is in flight finishes, what is new is refused, and what does not end is cut.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::harness::{Harness, PATIENCE, Received, config, get, good, rest};

#[tokio::test]
async fn an_exchange_in_flight_finishes_before_the_sessions_end() {
    let mut broker = Harness::start().await;
    let mut client = broker.h2().await;
    let mut request = good("slow");
    *request.uri_mut() = "http://mcp.example/mcp".parse().expect("a URL");
    request.headers_mut().remove("host");
    let answer = client.send_request(request);
    let (answer, ()) = tokio::join!(answer, async {
        broker.mcp.begun.notified().await;
        broker.shutdown.cancel();
        // The listener is gone: nothing new comes in.
        let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
        timeout(PATIENCE, refused).await.expect("the listener closes");
        assert!(!broker.journal.entries().contains(&"drain".to_owned()));
        broker.mcp.release.send_replace(true);
    });
    let said = Received::of(answer.expect("an answer")).await;
    assert_eq!(said.body, "POST /mcp 4 from the caller");
    broker.ended().await;
    assert_eq!(broker.journal.entries().last().expect("an entry"), "drain");
}

#[tokio::test]
async fn streams_that_only_listen_end_cleanly_and_hold_nothing_up() {
    let mut broker = Harness::start().await;
    let request = "GET /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\r\n";
    let mut stream = broker.raw(request.as_bytes()).await;
    broker.mcp.begun.notified().await;
    broker.shutdown.cancel();
    let said = rest(&mut stream).await;
    assert!(
        said.starts_with("HTTP/1.1 200") && said.ends_with("0\r\n\r\n"),
        "{said}"
    );
    broker.ended().await;
}

#[tokio::test]
async fn a_stream_that_answers_is_waited_for() {
    let mut broker = Harness::start().await;
    let answer = broker.answer(good("stream")).await;
    broker.shutdown.cancel();
    let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the listener closes");
    assert!(!broker.journal.entries().contains(&"drain".to_owned()));
    broker.mcp.end_streams();
    assert_eq!(Received::of(answer).await.body, "");
    broker.ended().await;
}

#[tokio::test]
async fn while_it_drains_only_what_was_let_in_is_served() {
    let mut broker = Harness::start().await;
    // Requests that are half there when the drain begins, and a connection that has sent nothing yet.
    let mut mcp = broker
        .raw(b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n")
        .await;
    let mut silent = broker.raw(b"").await;
    let mut ready = broker.raw(b"GET /readyz HTTP/1.1\r\n").await;
    // Their connections have been accepted, since later ones have been served.
    assert_eq!(broker.send(get("/readyz")).await.status, 200);
    let slow = broker.raw(
        b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nslow",
    );
    let slow = slow.await;
    broker.mcp.begun.notified().await;
    broker.shutdown.cancel();
    let refused = async { while TcpStream::connect(broker.addr).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("the listener closes");
    let rest_of_it = b"content-type: application/json\r\ncontent-length: 4\r\n\r\nquick";
    mcp.write_all(&rest_of_it[..rest_of_it.len() - 1])
        .await
        .expect("the connection is still there");
    silent
        .write_all(b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\nmore")
        .await
        .expect("the connection is still there");
    for stream in [&mut mcp, &mut silent] {
        let said = rest(stream).await.to_lowercase();
        assert!(said.starts_with("http/1.1 200"), "{said}");
        assert!(said.contains("connection: close"), "{said}");
    }
    ready.write_all(b"\r\n").await.expect("the connection is still there");
    assert!(rest(&mut ready).await.starts_with("HTTP/1.1 503"));
    broker.mcp.release.send_replace(true);
    drop(slow);
    broker.ended().await;
}

#[tokio::test]
async fn who_has_just_asked_may_ask_once_more_and_is_told_that_the_connection_closes() {
    let mut broker = Harness::start().await;
    let request = b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nmore";
    let mut kept = broker.raw(request).await;
    let mut said = [0; 12];
    kept.read_exact(&mut said).await.expect("an answer");
    assert_eq!(&said, b"HTTP/1.1 200");
    broker.shutdown.cancel();
    kept.write_all(request).await.expect("the connection is still there");
    let said = rest(&mut kept).await.to_lowercase();
    let (_first, second) = said.split_once("http/1.1 200").expect("the second answer");
    assert!(second.contains("connection: close"), "{said}");
    broker.ended().await;
}

#[tokio::test]
async fn a_request_that_is_in_the_socket_when_a_drain_begins_is_served_however_long_its_connection_was_idle() {
    let mut broker = Harness::start().await;
    let request = b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
          content-type: application/json\r\ncontent-length: 4\r\n\r\nmore";
    let mut kept = broker.raw(request).await;
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("from the caller") {
        assert_ne!(kept.read_buf(&mut said).await.expect("an answer"), 0);
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    tokio::time::resume();
    // Nobody else runs between these two, so the broker hears of its end first.
    assert_eq!(
        kept.try_write(request).expect("the connection is still there"),
        request.len()
    );
    broker.shutdown.cancel();
    let said = rest(&mut kept).await;
    assert!(said.contains("HTTP/1.1 200"), "{said:?}");
    broker.ended().await;
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline() {
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
    assert_eq!(broker.journal.entries().last().expect("an entry"), "drain");
    let mut byte = [0; 1];
    assert!(
        matches!(stuck.read(&mut byte).await, Ok(0) | Err(_)),
        "the connection is gone"
    );
    assert_eq!(broker.mcp.release.receiver_count(), 0, "and so is the exchange");
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let mut broker = Harness::start().await;
    let _silent = broker.raw(b"").await;
    let mut kept = broker.raw(b"GET /readyz HTTP/1.1\r\n\r\n").await;
    let mut head = [0; 12];
    kept.read_exact(&mut head).await.expect("an answer");
    let _h2 = broker.h2().await;
    broker.shutdown.cancel();
    broker.ended().await;
}
