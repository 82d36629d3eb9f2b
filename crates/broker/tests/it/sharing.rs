//! One user who takes all that there is leaves enough for the others.

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::io::AsyncReadExt;

use crate::harness::{Harness, Received, config, get, valid_post};

const SLOW_CALL: &[u8] = b"POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
                           content-type: application/json\r\ncontent-length: 4\r\n\r\nslow";

/// A request of the other grant.
fn post_of_other() -> Request<Full<Bytes>> {
    let mut request = valid_post("{}");
    let bearer = HeaderValue::from_static("Bearer other");
    request.headers_mut().insert("authorization", bearer);
    request
}

#[tokio::test]
async fn grant_at_its_limit_of_exchanges_gets_429_and_others_are_served() {
    let mut config = config("https://mcp.example");
    config.limits.exchanges = 8;
    config.limits.exchanges_per_grant = 3;
    let broker = Harness::with(config).await;
    let mut slow = Vec::new();
    for _ in 0..2 {
        slow.push(broker.raw(SLOW_CALL).await);
        broker.mcp.begun.notified().await;
    }
    // An open stream counts until it ends.
    let stream = broker.answer(valid_post("stream")).await;
    let refused = broker.send(valid_post("{}")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.json()["error"]["code"], -32000);
    assert_eq!(broker.send(post_of_other()).await.status, 200);
    assert_eq!(broker.send(get("/healthz")).await.status, 200);
    assert_eq!(broker.send(get("/readyz")).await.status, 200);

    broker.mcp.end_streams();
    Received::of(stream).await;
    assert_eq!(broker.send(valid_post("{}")).await.status, 200);
    broker.mcp.release.send_replace(true);
    for mut stream in slow {
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
    }
}
