//! Limits: when one side does not read, memory stays bounded and the other side gets an error.

use bridge::{Config, DropReason};
use tokio::task::JoinSet;

use crate::harness::{bridge, bridge_with, call, get, post, start_post, until};

#[tokio::test(start_paused = true)]
async fn requests_fail_with_a_reason_while_the_server_does_not_read() {
    let mut config = Config::default();
    config.outgoing.messages = 3;
    // The pipe holds less than a line, so writing blocks at once.
    let (bridge, mut server) = bridge_with(config, 16).await;
    let stuck = start_post(&bridge, call(0));
    let stuck = stuck.await.expect("no panic");
    let mut waiting = Vec::new();
    for id in 1..=3 {
        let reply = start_post(&bridge, call(id));
        waiting.push(reply.await.expect("no panic"));
    }
    let refused = post(&bridge, call(4)).await;
    assert_eq!(refused.status, 200);
    let error = refused.error().await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&4.into(), &(-32000).into()));
    assert!(
        error["error"]["message"]
            .as_str()
            .expect("text")
            .contains("does not read")
    );
    let notification = post(&bridge, r#"{"jsonrpc":"2.0","method":"n"}"#).await;
    assert_eq!(
        (notification.status.as_u16(), notification.header("retry-after")),
        (503, Some("1"))
    );
    // The bridge recovers once the server reads again.
    for mut reply in [stuck].into_iter().chain(waiting) {
        let (id, _) = server.request().await;
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
        let (messages, ()) = tokio::join!(reply.messages(), server.write(&answer));
        assert_eq!(messages.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_loses_notifications_but_not_its_response() {
    let mut config = Config::default();
    config.backlog.messages = 10;
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"progressToken":"t"}}}"#;
    let reply = start_post(&bridge, body);
    let (id, _) = server.request().await;
    let mut reply = reply.await.expect("no panic");
    for n in 0..5000 {
        let params = format!(r#"{{"progressToken":{id},"progress":{n}}}"#);
        server
            .write(&format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{params}}}"#
            ))
            .await;
    }
    server.result(id, "\"kept\"").await;
    until(|| server.dropped(DropReason::BacklogFull) == 4990).await;
    let messages = reply.messages().await;
    assert_eq!(messages.len(), 11);
    assert!(
        messages[0].contains("4990") && messages[9].contains("4999"),
        "{messages:?}"
    );
    assert_eq!(messages[10], r#"{"jsonrpc":"2.0","id":1,"result":"kept"}"#);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_concurrent_requests_are_served_or_rejected() {
    let (bridge, mut server) = bridge().await;
    let mut tasks = JoinSet::new();
    for id in 0..10_000 {
        let bridge = std::sync::Arc::clone(&bridge);
        tasks.spawn(async move { post(&bridge, call(id)).await });
    }
    let mut refused = 0;
    while refused < 10_000 - 1024 {
        let reply = tasks.join_next().await.expect("a task").expect("no panic");
        assert_eq!(reply.status, 429);
        refused += 1;
    }
    for _ in 0..1024 {
        let (id, _) = server.request().await;
        server.result(id, "{}").await;
    }
    while let Some(reply) = tasks.join_next().await {
        let reply = reply.expect("no panic");
        assert_eq!(reply.status, 200);
        assert!(reply.text().await.contains(r#""result":{}"#));
    }
}

#[tokio::test(start_paused = true)]
async fn open_listeners_leave_room_for_requests() {
    let config = Config {
        max_in_flight: 1,
        max_listeners: 2,
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let _listeners = [get(&bridge).await, get(&bridge).await];
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    // Open streams count toward the limit, read or not.
    assert_eq!(get(&bridge).await.status, 429);
    server.result(id, "{}").await;
    assert_eq!(reply.await.expect("no panic").status, 200);
}

#[tokio::test(start_paused = true)]
async fn unread_responses_are_bounded() {
    let config = Config {
        max_unflushed: 5000,
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let large = format!("\"{}\"", "x".repeat(3000));
    let first = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    server.result(id, &large).await;
    // The head has arrived, and the body stays unread.
    let first = first.await.expect("no panic");
    let second = start_post(&bridge, call(2));
    let (id, _) = server.request().await;
    server.result(id, &large).await;
    let error = second.await.expect("no panic").error().await;
    assert_eq!((&error["id"], &error["error"]["code"]), (&2.into(), &(-32000).into()));
    assert_eq!(server.dropped(DropReason::ClientNotReading), 1);
    assert!(first.text().await.contains("xxx"));
    let third = start_post(&bridge, call(3));
    let (id, _) = server.request().await;
    server.result(id, &large).await;
    assert!(third.await.expect("no panic").text().await.contains("xxx"));
}

#[tokio::test(start_paused = true)]
async fn a_response_line_that_is_too_long_fails_its_request_at_once() {
    let config = Config {
        max_line: 1000,
        ..Config::default()
    };
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let start = tokio::time::Instant::now();
    let replies = [1, 2].map(|id| start_post(&bridge, call(id)));
    let (first, _) = server.request().await;
    let (second, _) = server.request().await;
    let long = "x".repeat(5000);
    // A server request with the id of a request in flight.
    let params = format!(r#"{{"x":"{long}"}}"#);
    server
        .write(&format!(
            r#"{{"jsonrpc":"2.0","id":{first},"method":"ping","params":{params}}}"#
        ))
        .await;
    server
        .write(&format!(r#"{{"jsonrpc":"2.0","id":{second},"result":"{long}"}}"#))
        .await;
    server
        .write(&format!(
            r#"{{"result":{{"id":{second},"x":"{long}"}},"jsonrpc":"2.0","id":{first}}}"#
        ))
        .await;
    for (n, reply) in replies.into_iter().enumerate() {
        let error = reply.await.expect("no panic").error().await;
        assert_eq!(
            (&error["id"], &error["error"]["code"]),
            (&(n + 1).into(), &(-32000).into())
        );
        assert!(error["error"]["message"].as_str().expect("text").contains("too long"));
    }
    assert_eq!(start.elapsed().as_secs(), 0);
    assert_eq!(server.dropped(DropReason::LineTooLong), 3);
}
