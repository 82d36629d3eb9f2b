//! The end of the stream, from either side.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bridge::{Config, DropReason};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::Notify,
};

use crate::harness::{
    Bridge, Kind, Server, Sse, bridge, bridge_with, call, get, no_server, post, start_post, until, wait_for_end,
};

const ENDED: &str = r#""error":{"code":-32000,"message":"the MCP server of this session has ended; it is not known whether it has carried out the request"}}"#;

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_fails_everything_that_waits_at_once() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    assert_eq!(listener.next().await, Sse::Prime);
    let streaming = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"a","method":"m"}"#);
    server.request().await;
    let mut streaming = streaming.await.expect("no panic");
    let waiting = start_post(&bridge, r#"{"jsonrpc":"2.0","id":"b","method":"m"}"#);
    server.request().await;
    let start = tokio::time::Instant::now();
    server.raw(b"{\"jsonrpc\":\"2.0\",").await;
    let drop_counts = server.close();
    assert_eq!(
        streaming.messages().await,
        [format!(r#"{{"jsonrpc":"2.0","id":"a",{ENDED}"#)]
    );
    let waiting = waiting.await.expect("no panic");
    assert_eq!(
        (waiting.status.as_u16(), waiting.json().await),
        (200, format!(r#"{{"jsonrpc":"2.0","id":"b",{ENDED}"#))
    );
    wait_for_end(&bridge.link.done()).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    // Streams without a request stay open for the next server.
    assert_eq!(listener.next().await, Sse::Comment);
    assert_eq!(drop_counts.get(DropReason::InvalidJson), 1);
}

#[tokio::test(start_paused = true)]
async fn after_the_end_a_request_waits_until_the_owner_refuses() {
    let (bridge, server) = bridge().await;
    drop(server);
    wait_for_end(&bridge.link.done()).await;
    let reply = start_post(&bridge, call(3));
    until(|| bridge.owner.wanted() == [1]).await;
    bridge.refuse(&no_server());
    let reply = reply.await.expect("no panic");
    assert_eq!((reply.kind, reply.text().await.as_str()), (Kind::Unserved, "no server"));
    // Messages for which a new server has no use wake none.
    for body in [
        r#"{"jsonrpc":"2.0","method":"n"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#,
    ] {
        assert_eq!(post(&bridge, body).await.status, 202);
    }
    assert_eq!(bridge.owner.wanted(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn only_a_request_that_the_server_cannot_have_read_is_sent_again() {
    // The pipe holds one line, so the second one waits.
    let line = call(0).len() + 1;
    let (bridge, mut server) = bridge_with(Config::default(), line).await;
    let read = start_post(&bridge, call(1));
    server.request().await;
    let in_the_pipe = start_post(&bridge, call(2));
    tokio::task::yield_now().await;
    let unread = start_post(&bridge, call(3));
    tokio::time::sleep(Duration::from_millis(1)).await;
    drop(server);
    for reply in [read, in_the_pipe] {
        assert!(reply.await.expect("no panic").text().await.contains(ENDED));
    }
    let (_link, mut server) = bridge.rotate(2, async |_| {}).await;
    let (number, line) = server.request().await;
    assert!(line.contains("tools/call"));
    server.result(number, "{}").await;
    assert_eq!(
        unread.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":3,"result":{}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_written_before_the_end_is_delivered() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(1));
    let (id, _) = server.request().await;
    server.result(id, "\"last words\"").await;
    drop(server);
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"last words"}"#
    );
}

#[tokio::test(start_paused = true)]
async fn close_drops_the_io_and_fails_requests_in_flight() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, call(1));
    server.request().await;
    tokio::join!(bridge.link.close(), bridge.link.close());
    assert!(bridge.link.done().is_cancelled());
    server.wait_for_end().await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        format!(r#"{{"jsonrpc":"2.0","id":1,{ENDED}"#)
    );
    bridge.link.close().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_bridge_ends_the_stream() {
    let (bridge, mut server) = bridge().await;
    let mut listener = get(&bridge).await;
    let reply = start_post(&bridge, call(1));
    server.request().await;
    let mut reply = reply.await.expect("no panic");
    let done = bridge.link.done();
    drop(bridge);
    wait_for_end(&done).await;
    server.wait_for_end().await;
    assert_eq!(reply.messages().await.len(), 1);
    assert_eq!(listener.messages().await, [""; 0]);
}

/// A server that closes its input after the first write and continues to write. Notifies when it
/// rejects a write.
struct WriteClosed {
    io: DuplexStream,
    accepted: bool,
    refused: Arc<Notify>,
}

impl AsyncRead for WriteClosed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteClosed {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !std::mem::replace(&mut self.accepted, true) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.refused.notify_one();
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_closes_its_input_is_read_a_little_longer() {
    let (near, far) = tokio::io::duplex(1 << 16);
    let config = Config::default();
    let mut server = Server::new(far, &config);
    let refused = Arc::new(Notify::new());
    let io = WriteClosed {
        io: near,
        accepted: false,
        refused: Arc::clone(&refused),
    };
    let bridge = Bridge::connect(io, config, None).await.expect("nothing to replay");
    let bridge = Arc::new(bridge);
    let start = tokio::time::Instant::now();
    let first = start_post(&bridge, call(1));
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = start_post(&bridge, call(2));
    refused.notified().await;
    // The first request of a bridge has the number 1.
    server.result(1, "\"heard\"").await;
    assert_eq!(
        first.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":1,"result":"heard"}"#
    );
    wait_for_end(&bridge.link.done()).await;
    assert_eq!(start.elapsed(), Duration::from_millis(1001));
    // The second one was not written, so it waits for the next server.
    bridge.refuse(&no_server());
    assert_eq!(second.await.expect("no panic").kind, Kind::Unserved);
}
