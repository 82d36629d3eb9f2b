//! The forwarder in front of a listener that answers with fixed bytes.

use std::{net::SocketAddr, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::Forwarder;
use crate::plain;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;

const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
                      id: 1\ndata:\n\nid: 2\ndata: {}\n\n";

/// Answers each connection with the same bytes and gives what it was asked.
async fn upstream(answer: &'static str) -> (SocketAddr, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut asked = JoinSet::new();
    asked.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        request.truncate(length);
        String::from_utf8(request).unwrap()
    });
    (address, asked)
}

#[tokio::test]
async fn host_and_origin_pass_and_a_bearer_is_added_where_there_is_none() {
    for (own, expected) in [(None, "Bearer given"), (Some("Bearer own"), "Bearer own")] {
        let (address, mut asked) = upstream("HTTP/1.1 204 No Content\r\n\r\n").await;
        let forwarder = Forwarder::start(0, address.port(), None).await.unwrap();
        forwarder.set_bearer("given");
        let mut request = plain::client(Duration::from_secs(10))
            .post(forwarder.mcp_url())
            .header("host", "evil.example")
            .header("origin", "http://evil.example")
            .body("{}");
        if let Some(own) = own {
            request = request.header("authorization", own);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::NO_CONTENT);
        let asked = asked.join_next().await.unwrap().unwrap();
        for line in [
            "host: evil.example",
            "origin: http://evil.example",
            &format!("authorization: {expected}"),
        ] {
            assert_eq!(asked.matches(line).count(), 1, "{line} in {asked}");
        }
    }
}

#[tokio::test]
async fn only_what_the_chosen_tool_answers_as_a_stream_is_cut() {
    for (tool, body) in [
        ("slow", "id: 1\ndata:\n\n"),
        ("other", "id: 1\ndata:\n\nid: 2\ndata: {}\n\n"),
    ] {
        let (address, _asked) = upstream(EVENTS).await;
        let forwarder = Forwarder::start(0, address.port(), Some(tool)).await.unwrap();
        let request = plain::client(Duration::from_secs(10)).post(forwarder.mcp_url());
        let answer = request.body(CALL).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), body);
        assert_eq!(forwarder.cuts(), usize::from(tool == "slow"));
        assert_eq!(forwarder.resumptions(), 0);
    }
}

#[tokio::test]
async fn who_names_the_last_event_wants_to_resume() {
    let (address, _asked) = upstream(EVENTS).await;
    let forwarder = Forwarder::start(0, address.port(), None).await.unwrap();
    let request = plain::client(Duration::from_secs(10)).get(forwarder.mcp_url());
    request.header("last-event-id", "1").send().await.unwrap();
    assert_eq!(forwarder.resumptions(), 1);
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_a_502() {
    let (address, _) = upstream("").await;
    let forwarder = Forwarder::start(0, address.port(), None).await.unwrap();
    let request = plain::client(Duration::from_secs(10)).get(forwarder.url());
    assert_eq!(request.send().await.unwrap().status(), StatusCode::BAD_GATEWAY);
}
