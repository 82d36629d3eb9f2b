//! One user who takes all that there is leaves enough for the others.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

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

/// The start of a request whose body does not end.
fn unfinished(path: &str, bearer: &str, sent: usize) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer {bearer}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{}",
        sent + 1,
        "x".repeat(sent)
    )
}

/// The largest body.
const BODY: usize = 2_000;

async fn broker_with_small_budget() -> Harness {
    let mut config = config("https://mcp.example");
    config.limits.mcp_body = BODY;
    config.limits.oauth_body = BODY;
    config.limits.bodies = 8 * BODY;
    Harness::with(config).await
}

/// Sends unfinished bodies until one gets an answer. Returns the answer and the connections that
/// wait.
async fn fill_budget(broker: &Harness, path: &str, bearer: &str) -> (Vec<TcpStream>, String) {
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let mut stream = broker.raw(unfinished(path, bearer, BODY - 100).as_bytes()).await;
        let mut answer = [0; 512];
        let read = timeout(Duration::from_millis(200), stream.read(&mut answer)).await;
        if let Ok(read) = read {
            let length = read.expect("an answer");
            return (waiting, String::from_utf8_lossy(&answer[..length]).to_lowercase());
        }
        waiting.push(stream);
    }
    panic!("the budget has no limit");
}

#[tokio::test]
async fn unfinished_bodies_of_strangers_take_nothing_from_users() {
    let broker = broker_with_small_budget().await;
    let (waiting, refused) = fill_budget(&broker, "/oauth/token", "bad").await;
    assert_eq!(
        waiting.len(),
        4,
        "a quarter of the budget, without the first bytes of each body"
    );
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    assert!(refused.contains("retry-after: 1"), "{refused}");
    // A request for a token is small.
    let mut refresh = get("/oauth/token");
    *refresh.method_mut() = http::Method::POST;
    *refresh.body_mut() = Full::from("x".repeat(500));
    assert_eq!(broker.send(refresh).await.status, 200);
    // At /mcp the bodies of strangers are not read.
    for _ in 0..20 {
        let mut stream = broker.raw(unfinished("/mcp", "bad", BODY - 100).as_bytes()).await;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 401");
    }
    let body = "x".repeat(BODY);
    assert_eq!(broker.send(valid_post(&body)).await.status, 200);
    drop(waiting);
    // The bytes return when the connections end.
    let mut form = get("/oauth/token");
    *form.method_mut() = http::Method::POST;
    *form.body_mut() = Full::from(body);
    while broker.send(form.clone()).await.status != 200 {}
}

#[tokio::test]
async fn unfinished_bodies_of_one_user_take_a_share_only() {
    let broker = broker_with_small_budget().await;
    let (waiting, refused) = fill_budget(&broker, "/mcp", "good").await;
    assert_eq!(waiting.len(), 2, "a quarter of the budget");
    assert!(refused.starts_with("http/1.1 503"), "{refused}");
    assert_eq!(broker.send(post_of_other()).await.status, 200);
}
