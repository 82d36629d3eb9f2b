//! The forwarder in front of a server that answers with a stream of two events.

use axum::{Router, body::Bytes, extract::State, response::IntoResponse as _};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::*;

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;
const FIRST_EVENT: &str = "id: 1\ndata:\n\n";
const BOTH_EVENTS: &str = "id: 1\ndata:\n\nid: 2\ndata: {}\n\n";

type Requests = Arc<Mutex<Vec<HeaderMap>>>;

async fn upstream() -> (HttpServer, Requests) {
    let requests = Requests::default();
    let answer = async |State(requests): State<Requests>, headers: HeaderMap, _: Bytes| {
        requests.lock().unwrap().push(headers);
        ([(CONTENT_TYPE, "text/event-stream")], BOTH_EVENTS).into_response()
    };
    let router = Router::new().fallback(answer).with_state(Arc::clone(&requests));
    (HttpServer::start(0, router).await.unwrap(), requests)
}

async fn start(cut: Option<&str>) -> (Forwarder, reqwest::Client, HttpServer, Requests) {
    let (server, requests) = upstream().await;
    let forwarder = Forwarder::start(0, server.address().port(), cut).await.unwrap();
    let http = http_client::client(Duration::from_secs(10));
    (forwarder, http, server, requests)
}

#[tokio::test]
async fn host_and_origin_pass_and_a_missing_bearer_is_added() {
    for (own, expected) in [(None, "Bearer given"), (Some("Bearer own"), "Bearer own")] {
        let (forwarder, http, _server, requests) = start(None).await;
        forwarder.set_bearer("given");
        let mut request = http
            .post(forwarder.mcp_url())
            .header("host", "evil.example")
            .header("origin", "http://evil.example")
            .body("{}");
        if let Some(own) = own {
            request = request.header("authorization", own);
        }
        assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
        let requests = requests.lock().unwrap();
        for (name, value) in [
            ("host", "evil.example"),
            ("origin", "http://evil.example"),
            ("authorization", expected),
        ] {
            let values: Vec<_> = requests[0].get_all(name).iter().collect();
            assert_eq!(values, [value], "{name}");
        }
    }
}

#[tokio::test]
async fn only_streams_of_the_chosen_tool_are_cut() {
    for (tool, body) in [("slow", FIRST_EVENT), ("other", BOTH_EVENTS)] {
        let (forwarder, http, _server, _) = start(Some(tool)).await;
        let answer = http.post(forwarder.mcp_url()).body(CALL).send().await.unwrap();
        assert_eq!(answer.text().await.unwrap(), body);
        assert_eq!(forwarder.cuts(), usize::from(tool == "slow"));
        assert_eq!(forwarder.resumptions(), 0);
    }
}

#[tokio::test]
async fn request_with_last_event_id_counts_as_resumption() {
    let (forwarder, http, _server, _) = start(None).await;
    let request = http.get(forwarder.mcp_url()).header("last-event-id", "1");
    request.send().await.unwrap();
    assert_eq!(forwarder.resumptions(), 1);
}

#[tokio::test]
async fn missing_broker_is_a_502() {
    let (forwarder, http, server, _) = start(None).await;
    server.stop().await;
    let answer = http.get(forwarder.url()).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn what_a_client_has_not_read_is_seen() {
    let (forwarder, _, _server, _) = start(None).await;
    let mut client = TcpStream::connect(forwarder.server.address()).await.unwrap();
    let request = b"POST /mcp HTTP/1.1\r\nhost: broker\r\ncontent-length: 0\r\n\r\n";
    client.write_all(request).await.unwrap();
    forwarder
        .wait_for(|requests| requests.iter().any(|request| request.stream_begun))
        .await;
    client.readable().await.unwrap();
    let unread = || {
        unread_bytes(
            forwarder.server.address().port(),
            &fs::read_to_string(TCP_SOCKETS).unwrap(),
        )
    };
    assert!(unread() > 0);
    client.read_buf(&mut BytesMut::with_capacity(4096)).await.unwrap();
    forwarder.all_is_read().await.unwrap();
    assert_eq!(unread(), 0);
}
