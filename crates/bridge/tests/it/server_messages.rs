//! Messages that the server sends unasked, and messages that it should not send.

use std::time::Duration;

use bridge::{Config, DropReason};

use crate::harness::{Server, Sse, bridge, bridge_with, call, get, no_server, post, question_id, start_post, until};

fn log_message(n: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n}}}}}"#)
}

/// Waits until the bridge has read all lines so far, by a later exchange.
async fn wait_until_read(bridge: &std::sync::Arc<crate::harness::Bridge>, server: &mut Server) {
    let reply = start_post(bridge, r#"{"jsonrpc":"2.0","id":"last","method":"ping"}"#);
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    reply.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_get_stream_starts_at_once_with_keep_alive_comments() {
    let (bridge, _server) = bridge().await;
    let start = tokio::time::Instant::now();
    let mut listener = get(&bridge).await;
    assert_eq!(listener.status, 200);
    assert_eq!(listener.next().await, Sse::Prime);
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(listener.next().await, Sse::Comment);
    assert_eq!(start.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_message_without_request_goes_to_the_newest_listener_only() {
    let (bridge, mut server) = bridge().await;
    let mut old = get(&bridge).await;
    let mut new = get(&bridge).await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    server.write(&log_message(1)).await;
    assert_eq!(new.message().await, log_message(1));
    drop(new);
    server.write(&log_message(2)).await;
    assert_eq!(old.message().await, log_message(2));
    server.result(id, "{}").await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#
    );
    bridge.close(&no_server());
    assert_eq!(old.messages().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn without_listener_a_message_goes_to_the_newest_request() {
    let (bridge, mut server) = bridge().await;
    let older = start_post(&bridge, call(1));
    let (first, _) = server.request().await;
    let newer = start_post(&bridge, call(2));
    let (second, _) = server.request().await;
    server.write(&log_message(1)).await;
    server.result(second, "{}").await;
    server.write(&log_message(2)).await;
    server.result(first, "{}").await;
    for (reply, n) in [(older, 2), (newer, 1)] {
        let messages = reply.await.expect("no panic").messages().await;
        assert_eq!((messages.len(), &messages[0]), (2, &log_message(n)));
    }
}

#[tokio::test(start_paused = true)]
async fn without_streams_notifications_wait_and_the_oldest_are_dropped() {
    let mut config = Config::default();
    config.backlog.messages = 3;
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    for n in 1..=5 {
        server.write(&log_message(n)).await;
    }
    server.write(&log_message(6)).await;
    until(|| server.dropped(DropReason::BacklogFull) == 3).await;
    let mut listener = get(&bridge).await;
    for n in 4..=6 {
        assert_eq!(listener.message().await, log_message(n));
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_request_is_answered_once_with_its_own_id() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    let request =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"sampling/createMessage","params":{{}}}}"#);
    server.write(&request(r#""srv-\u00e9""#)).await;
    let asked = listener.message().await;
    // Toward the client it has an id of the conversation.
    let id = question_id(&asked);
    assert_eq!(asked, request(&id));
    assert!(id.starts_with("\"tag-"), "{id}");
    let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"role":"assistant"}}}}"#);
    assert_eq!(post(&bridge, answer(r#""srv-\u00e9""#)).await.status, 202);
    assert_eq!(post(&bridge, answer(&id)).await.status, 202);
    assert_eq!(server.line().await, answer(r#""srv-\u00e9""#));
    // A second response, and a response to no request, are dropped.
    assert_eq!(post(&bridge, answer(&id)).await.status, 202);
    assert_eq!(
        post(
            &bridge,
            r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#
        )
        .await
        .status,
        202
    );
    assert!(server.receives_nothing(Duration::from_secs(60)).await);
    assert_eq!(server.dropped(DropReason::UnmatchedClientMessage), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_request_without_client_times_out() {
    let (bridge, mut server) = bridge().await;
    let start = tokio::time::Instant::now();
    server.write(r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#).await;
    let answer = server.line().await;
    assert_eq!(start.elapsed(), Duration::from_secs(30));
    assert!(
        answer.starts_with(r#"{"jsonrpc":"2.0","id":9,"error":{"code":-32001,"#),
        "{answer}"
    );
    // A client that listens later does not get the request.
    let mut listener = get(&bridge).await;
    server.write(&log_message(1)).await;
    assert_eq!(listener.message().await, log_message(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_request_waits_for_a_client() {
    let (bridge, mut server) = bridge().await;
    server
        .write(r#"{"jsonrpc":"2.0","id":9,"method":"elicitation/create"}"#)
        .await;
    assert!(server.receives_nothing(Duration::from_secs(20)).await);
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    let mut reply = reply.await.expect("no panic");
    let asked = question_id(&reply.message().await);
    // A delivered request has more time than one without a client.
    assert!(server.receives_nothing(Duration::from_secs(100)).await);
    let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"action":"accept"}}}}"#);
    assert_eq!(post(&bridge, answer(&asked)).await.status, 202);
    assert_eq!(server.line().await, answer("9"));
    server.result(id, "{}").await;
    assert_eq!(reply.messages().await, [r#"{"jsonrpc":"2.0","id":1,"result":{}}"#]);
}

#[tokio::test(start_paused = true)]
async fn invalid_lines_are_counted_and_dropped() {
    let config = Config {
        max_line: 1000,
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    server
        .raw(b"Listening on port 80\n\n  \n\xff\xfe\n{\"jsonrpc\":\"2.0\",\n")
        .await;
    server
        .raw(b"[]\n{\"jsonrpc\":\"1.0\",\"id\":99,\"result\":{}}\n{\"id\":1}\n")
        .await;
    server.raw(&[b'x'; 5000]).await;
    server.raw(b"\n").await;
    server.result(id + 1, "{}").await;
    server.result(id, "\"right\"").await;
    server.result(id, "\"twice\"").await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"right"}"#
    );
    wait_until_read(&bridge, &mut server).await;
    let counts = [
        DropReason::InvalidJson,
        DropReason::InvalidMessage,
        DropReason::LineTooLong,
        DropReason::UnmatchedResponse,
    ];
    assert_eq!(counts.map(|fault| server.dropped(fault)), [3, 3, 1, 2]);
    assert!(!bridge.link.done().is_cancelled());
}
