//! Clients that lose their connection and resume their streams.

use std::{sync::Arc, time::Duration};

use bridge::{Config, DropReason};

use crate::harness::{
    Bridge, Reply, Server, Sse, bridge, bridge_with, call, get, post, question_id, resume, resume_from, start_post,
    until,
};

const REQUEST: &str = r#"{"jsonrpc":"2.0","id":"a","method":"m","params":{"_meta":{"progressToken":"t"}}}"#;
const LOST: &str = r#""error":{"code":-32000,"message":"the response to this request is no longer available"}}"#;

/// Progress as the client gets it.
fn progress(n: u32) -> String {
    progress_of("\"t\"", n)
}

/// Progress as the server of a request writes it.
fn progress_of(token: impl std::fmt::Display, n: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token},"progress":{n}}}}}"#
    )
}

fn log_message(n: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"n":{n}}}}}"#)
}

/// Starts a request whose answer becomes a stream. Returns the stream behind its priming event, and
/// the number of the request.
async fn streaming(bridge: &Arc<Bridge>, server: &mut Server, body: &str) -> (Reply, u64) {
    let reply = start_post(bridge, body.to_owned());
    let (number, _) = server.request().await;
    let mut reply = reply.await.expect("no panic");
    assert_eq!(reply.next().await, Sse::Prime);
    (reply, number)
}

/// Starts a request whose answer becomes a stream, and disconnects its client. Returns the id of
/// the priming event, and the number of the request.
async fn disconnected(bridge: &Arc<Bridge>, server: &mut Server, body: &str) -> (String, u64) {
    let (reply, number) = streaming(bridge, server, body).await;
    (reply.last_id.clone().expect("an event"), number)
}

#[tokio::test(start_paused = true)]
async fn a_response_waits_for_a_client_that_disconnected_before_it() {
    let (bridge, mut server) = bridge().await;
    let (id, number) = disconnected(&bridge, &mut server, &call(1)).await;
    server.result(number, "\"late\"").await;
    // Twice, because the first attempt may have lost its connection too.
    for _ in 0..2 {
        let mut again = resume_from(&bridge, &id).await;
        assert_eq!(
            (again.status.as_u16(), again.header("content-type")),
            (200, Some("text/event-stream"))
        );
        assert_eq!(again.next().await, Sse::Prime);
        assert_eq!(again.last_id.as_deref(), Some(id.as_str()));
        assert_eq!(
            again.next().await,
            Sse::Message(r#"{"jsonrpc":"2.0","id":1,"result":"late"}"#.into())
        );
        assert_eq!(again.next().await, Sse::End);
    }
    assert_eq!(server.dropped(DropReason::ClientGone), 0);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_delivers_every_message_once() {
    let (bridge, mut server) = bridge().await;
    let (mut reply, number) = streaming(&bridge, &mut server, REQUEST).await;
    server.write(&progress_of(number, 1)).await;
    assert_eq!(reply.message().await, progress(1));
    let mut again = resume(&bridge, reply).await;
    server.write(&progress_of(number, 2)).await;
    assert_eq!(again.message().await, progress(2));
    // Messages between two connections stay on the stream.
    let id = again.last_id.clone().expect("an event");
    drop(again);
    let mut listener = get(&bridge).await;
    server.write(&progress_of(number, 3)).await;
    server.result(number, "{}").await;
    server.write(&log_message(1)).await;
    assert_eq!(listener.message().await, log_message(1));
    let mut again = resume_from(&bridge, &id).await;
    assert_eq!(
        again.messages().await,
        [progress(3), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_owned()]
    );
}

#[tokio::test(start_paused = true)]
async fn a_listener_resumes_at_its_position() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    server.write(&log_message(1)).await;
    server.write(&log_message(2)).await;
    assert_eq!(listener.message().await, log_message(1));
    let id = listener.last_id.clone().expect("an event");
    assert_eq!(listener.message().await, log_message(2));
    drop(listener);
    server.write(&log_message(3)).await;
    let mut again = resume_from(&bridge, &id).await;
    for n in [2, 3] {
        assert_eq!(again.message().await, log_message(n));
    }
    server.write(&log_message(4)).await;
    assert_eq!(again.message().await, log_message(4));
}

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_ends_a_stale_connection() {
    let (bridge, mut server) = bridge().await;
    let (mut old, number) = streaming(&bridge, &mut server, REQUEST).await;
    let id = old.last_id.clone().expect("an event");
    server.write(&progress_of(number, 1)).await;
    assert_eq!(old.message().await, progress(1));
    let mut new = resume_from(&bridge, &id).await;
    assert_eq!(old.next().await, Sse::End);
    drop(old);
    server.result(number, "{}").await;
    assert_eq!(
        new.messages().await,
        [progress(1), r#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_owned()]
    );
}

#[tokio::test(start_paused = true)]
async fn a_late_resume_gets_an_error_for_its_request() {
    let (bridge, mut server) = bridge().await;
    let (id, number) = disconnected(&bridge, &mut server, REQUEST).await;
    server.result(number, "{}").await;
    tokio::time::sleep(Duration::from_secs(299)).await;
    drop(resume_from(&bridge, &id).await);
    // The time starts again with each disconnect.
    tokio::time::sleep(Duration::from_secs(299)).await;
    drop(resume_from(&bridge, &id).await);
    tokio::time::sleep(Duration::from_secs(301)).await;
    let mut late = resume_from(&bridge, &id).await;
    assert_eq!(late.status, 200);
    assert_eq!(late.messages().await, [format!(r#"{{"jsonrpc":"2.0","id":"a",{LOST}"#)]);
    assert_eq!(server.dropped(DropReason::NotReplayable), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_reader_does_not_expire_before_its_response() {
    let (bridge, mut server) = bridge().await;
    let (id, number) = disconnected(&bridge, &mut server, REQUEST).await;
    tokio::time::sleep(Duration::from_secs(590)).await;
    server.result(number, "{}").await;
    tokio::time::sleep(Duration::from_secs(290)).await;
    assert_eq!(resume_from(&bridge, &id).await.messages().await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_replay_buffer_is_bounded_by_its_size() {
    let mut config = Config::default();
    config.replay_buffer.bytes = 1000;
    let (bridge, mut server) = bridge_with(config, 1 << 16).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let (id, number) = disconnected(&bridge, &mut server, &call(n)).await;
        ids.push(id);
        server.result(number, &format!("\"{}\"", "x".repeat(400))).await;
    }
    // By the response to the next exchange, the bridge has read all of that.
    let reply = start_post(&bridge, call(9));
    let (number, _) = server.request().await;
    server.result(number, "{}").await;
    reply.await.expect("no panic");
    for (n, id) in ids.iter().enumerate() {
        let messages = resume_from(&bridge, id).await.messages().await;
        assert_eq!((messages.len(), messages[0].contains(LOST)), (1, n == 0), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bridge_of_the_next_server_reports_a_lost_response() {
    let (first, mut server) = bridge().await;
    let (cut, _) = streaming(&first, &mut server, REQUEST).await;
    let id = cut.last_id.clone().expect("an event");
    let (second, mut server) = bridge().await;
    // The new bridge must not confuse its own first stream with the old one.
    let (_own, _) = streaming(&second, &mut server, &call(1)).await;
    let mut again = resume_from(&second, &id).await;
    assert_eq!(again.status, 200);
    assert_eq!(
        again.messages().await,
        [format!(r#"{{"jsonrpc":"2.0","id":"a",{LOST}"#)]
    );
    // A listener of the old bridge has no lost requests, so it gets a new stream.
    let mut listener = get(&first).await;
    assert_eq!(listener.next().await, Sse::Prime);
    let mut listener = resume(&second, listener).await;
    server.write(&log_message(1)).await;
    assert_eq!(listener.message().await, log_message(1));
}

#[tokio::test(start_paused = true)]
async fn a_resumed_stream_reports_the_end_of_the_server() {
    let (bridge, mut server) = bridge().await;
    let (id, _) = disconnected(&bridge, &mut server, REQUEST).await;
    drop(server);
    bridge.link.done().cancelled().await;
    let messages = resume_from(&bridge, &id).await.messages().await;
    assert_eq!(messages.len(), 1);
    assert!(
        messages[0].contains(r#""id":"a","error":{"code":-32000"#),
        "{messages:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_invalid_event_id_is_ignored() {
    let (bridge, mut server) = bridge().await;
    for id in ["", "1", "x-y-z", "0-0-0-zz", "ffffffffffffffffffff-0-0"] {
        let mut listener = resume_from(&bridge, id).await;
        assert_eq!(listener.status, 200);
        server.write(&log_message(1)).await;
        assert_eq!(listener.message().await, log_message(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_is_dropped_if_its_client_left_without_an_event_id() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(1));
    let (number, _) = server.request().await;
    reply.abort();
    assert!(reply.await.is_err());
    server.result(number, "{}").await;
    until(|| server.dropped(DropReason::ClientGone) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_request_is_replayed_on_resume() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    assert_eq!(listener.next().await, Sse::Prime);
    let id = listener.last_id.clone().expect("an event");
    let request = r#"{"jsonrpc":"2.0","id":5,"method":"roots/list"}"#;
    server.write(request).await;
    let asked = listener.message().await;
    drop(listener);
    assert_eq!(resume_from(&bridge, &id).await.message().await, asked);
    let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"roots":[]}}}}"#);
    assert_eq!(post(&bridge, answer(&question_id(&asked))).await.status, 202);
    assert_eq!(server.line().await, answer("5"));
}
