//! Batches, which only MCP 2025-03-26 has.

use std::sync::Arc;

use bridge::DropReason;

use crate::harness::{Bridge, Server, bridge, call, initialize, post, question_id, start_post};

/// A session with this revision.
async fn session(version: &str) -> (Arc<Bridge>, Server) {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize(version));
    let (id, _) = server.request().await;
    server
        .result(id, &format!(r#"{{"protocolVersion":"{version}"}}"#))
        .await;
    assert_eq!(reply.await.expect("no panic").status, 200);
    (bridge, server)
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_split_for_the_server_and_answered_as_one() {
    let (bridge, mut server) = session("2025-03-26").await;
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let body = format!(
        "[{},\n {notification}, {}]",
        call(1),
        call(2).replace(":2,", ":\"two\",")
    );
    let reply = start_post(&bridge, body);
    let (first, _) = server.request().await;
    assert_eq!(server.line().await, notification);
    let (second, _) = server.request().await;
    server.result(second, "2").await;
    server.result(first, "1").await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"[{"jsonrpc":"2.0","id":"two","result":2},{"jsonrpc":"2.0","id":1,"result":1}]"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_becomes_a_stream_that_ends_with_its_last_response() {
    let (bridge, mut server) = session("2025-03-26").await;
    let reply = start_post(&bridge, format!("[{},{}]", call(1), call(2)));
    let (first, _) = server.request().await;
    let (second, _) = server.request().await;
    server.result(first, "1").await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(reply.message().await, r#"{"jsonrpc":"2.0","id":1,"result":1}"#);
    server.result(second, "2").await;
    assert_eq!(reply.messages().await, [r#"{"jsonrpc":"2.0","id":2,"result":2}"#]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_requests_is_accepted() {
    let (bridge, mut server) = session("2025-03-26").await;
    server.write(r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#).await;
    let notification = r#"{"jsonrpc":"2.0","method":"n"}"#;
    let mut listener = crate::harness::get(&bridge).await;
    let id = question_id(&listener.message().await);
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    let reply = post(&bridge, format!("[{answer},{notification}]")).await;
    assert_eq!((reply.status.as_u16(), reply.text().await.as_str()), (202, ""));
    assert_eq!(server.line().await, r#"{"jsonrpc":"2.0","id":9,"result":{}}"#);
    assert_eq!(server.line().await, notification);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_batch_is_rejected_as_a_whole() {
    let (bridge, mut server) = session("2025-03-26").await;
    let _flying = start_post(&bridge, call(7));
    server.request().await;
    for (body, status) in [
        ("[]".to_owned(), 400),
        ("[1]".to_owned(), 400),
        (format!("[{},{{}}]", call(1)), 400),
        (format!("[{}", call(1)), 400),
        (format!("[{},{}]", call(1), initialize("2025-03-26")), 400),
        (format!("[{},{}]", call(1), call(1)), 409),
        (format!("[{},{}]", call(1), call(7)), 409),
        (
            format!("[{}]", (100..1200).map(call).collect::<Vec<_>>().join(",")),
            429,
        ),
    ] {
        assert_eq!(post(&bridge, body.clone()).await.status, status, "{body}");
    }
    assert!(server.receives_nothing(std::time::Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn batches_are_rejected_in_other_revisions_in_both_directions() {
    for version in ["2025-06-18", "2025-11-25"] {
        let (bridge, mut server) = session(version).await;
        let refused = post(&bridge, format!("[{}]", call(1))).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.error().await["error"]["code"], -32600);
        let reply = start_post(&bridge, call(1));
        let (id, _) = server.request().await;
        server
            .write(&format!(r#"[{{"jsonrpc":"2.0","id":{id},"result":"batch"}}]"#))
            .await;
        // The answer of the server is invalid, and no other one will come.
        let error = reply.await.expect("no panic").error().await;
        assert_eq!((&error["id"], &error["error"]["code"]), (&1.into(), &(-32000).into()));
        assert_eq!(server.dropped(DropReason::InvalidMessage), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_the_server_is_split() {
    let (bridge, mut server) = session("2025-03-26").await;
    let replies = [1, 2].map(|id| start_post(&bridge, call(id)));
    let (first, _) = server.request().await;
    let (second, _) = server.request().await;
    let answer = |id: u64| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
    server.write(&format!("[{},{}]", answer(second), answer(first))).await;
    for (n, reply) in replies.into_iter().enumerate() {
        assert_eq!(reply.await.expect("no panic").json().await, answer(n as u64 + 1));
    }
}
