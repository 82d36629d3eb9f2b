//! The checks of `/mcp`: each error, and their order.

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Harness, Received, config, get, read_to_end, valid_post};

fn with(name: &'static str, value: &str) -> Request<Full<Bytes>> {
    let mut request = valid_post("{}");
    request
        .headers_mut()
        .insert(name, HeaderValue::from_str(value).expect("a value"));
    request
}

fn without(name: &'static str) -> Request<Full<Bytes>> {
    let mut request = valid_post("{}");
    request.headers_mut().remove(name);
    request
}

/// The body is a JSON-RPC error without an id, since the request's body was not read.
fn assert_rejected(response: &Received, status: u16) {
    assert_eq!(response.status, status, "{}", response.body);
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body = response.json();
    assert_eq!(body["jsonrpc"], "2.0");
    assert!(body["error"]["code"].is_i64() && body["error"]["message"].is_string());
    assert!(body.get("id").is_none());
}

#[tokio::test]
async fn valid_request_reaches_the_service_with_its_caller() {
    let broker = Harness::start().await;
    let response = broker.send(valid_post("{}")).await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (200, "POST /mcp 2 from the caller")
    );
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
    let entries = broker.calls.entries();
    assert_eq!(entries, ["authenticate", "POST /mcp 2 from the caller"]);
}

#[tokio::test]
async fn http2_is_served() {
    let broker = Harness::start().await;
    let mut request = valid_post("{}");
    *request.uri_mut() = "http://mcp.example/mcp".parse().expect("a URL");
    request.headers_mut().remove("host");
    let response = broker.send_h2(request).await;
    assert_eq!(
        (response.status, response.body.as_str()),
        (200, "POST /mcp 2 from the caller")
    );
}

#[tokio::test]
async fn host_and_origin_are_checked_before_anything_else() {
    let broker = Harness::start().await;
    assert_rejected(&broker.send(with("host", "evil.example")).await, 403);
    assert_rejected(&broker.send(with("host", "a b")).await, 400);
    assert_rejected(&broker.send(with("origin", "https://evil.example")).await, 403);
    assert_rejected(&broker.send(with("origin", "null")).await, 403);
    let mut h2 = valid_post("{}");
    *h2.uri_mut() = "http://evil.example/mcp".parse().expect("a URL");
    h2.headers_mut().remove("host");
    assert_rejected(&broker.send_h2(h2).await, 403);
    // Also for a request that has no bearer and a wrong method.
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let mut request = with(name, value);
        *request.method_mut() = http::Method::PUT;
        request.headers_mut().remove("authorization");
        assert_rejected(&broker.send(request).await, 403);
    }
    assert!(broker.calls.entries().is_empty());
    assert_eq!(broker.send(with("origin", "https://mcp.example")).await.status, 200);
}

#[tokio::test]
async fn allowed_origin_may_preflight_without_a_bearer_and_read_every_response() {
    let broker = Harness::start().await;
    let preflight = |origin: &str| {
        Request::options("/mcp")
            .header("host", "mcp.example")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "authorization, content-type, mcp-method, mcp-name, mcp-param-user_id, mcp-protocol-version",
            )
            .body(Full::default())
            .expect("a request")
    };
    let response = broker.send(preflight("https://mcp.example")).await;
    assert_eq!((response.status, response.body.as_str()), (204, ""));
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://mcp.example")
    );
    assert_eq!(
        response.header("access-control-allow-methods"),
        Some("GET, POST, DELETE")
    );
    let headers = response.header("access-control-allow-headers").expect("a list");
    for name in [
        "authorization",
        "mcp-session-id",
        "mcp-protocol-version",
        "last-event-id",
        "mcp-method",
        "mcp-name",
        "mcp-param-user_id",
    ] {
        assert!(headers.split(", ").any(|allowed| allowed == name), "{name}: {headers}");
    }
    assert!(response.header("access-control-allow-credentials").is_none());
    assert!(broker.calls.entries().is_empty(), "the authority is not called");

    let response = broker.send(with("origin", "https://mcp.example")).await;
    assert_eq!(response.status, 200);
    assert_eq!(
        response.header("access-control-allow-origin"),
        Some("https://mcp.example")
    );
    assert_eq!(response.header("vary"), Some("Origin"));
    assert!(
        response
            .header("access-control-expose-headers")
            .expect("a list")
            .contains("mcp-session-id")
    );
    let mut unwelcome = with("origin", "https://mcp.example");
    unwelcome
        .headers_mut()
        .insert("accept", HeaderValue::from_static("application/json"));
    let response = broker.send(unwelcome).await;
    assert_eq!(
        (response.status, response.header("access-control-allow-origin")),
        (406, Some("https://mcp.example"))
    );

    let refused = broker.send(preflight("https://evil.example")).await;
    assert_rejected(&refused, 403);
    assert!(refused.header("access-control-allow-origin").is_none());
    let refused = broker.send(with("origin", "https://evil.example")).await;
    assert!(refused.header("access-control-allow-origin").is_none());
    assert!(
        broker
            .send(valid_post("{}"))
            .await
            .header("access-control-allow-origin")
            .is_none()
    );
}

#[tokio::test]
async fn configured_hosts_and_origins_are_allowed() {
    let mut config = config("https://mcp.example");
    config.allowed_hosts = vec!["inner.example".into()];
    config.allowed_origins = vec!["https://app.example".into()];
    let broker = Harness::with(config).await;
    assert_eq!(broker.send(with("host", "inner.example:8080")).await.status, 200);
    assert_eq!(broker.send(with("origin", "https://app.example")).await.status, 200);
}

#[tokio::test]
async fn request_without_a_host_reaches_only_health() {
    let broker = Harness::start().await;
    let mut stream = broker.raw(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 400"));
    let mut stream = broker.raw(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n").await;
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn unauthenticated_request_gets_the_challenge_before_any_other_error() {
    let mut config = config("https://mcp.example");
    config.limits.mcp_body = 1024;
    let broker = Harness::with(config).await;
    let challenged = async |request: Request<Full<Bytes>>, fault: &str| {
        let response = broker.send(request).await;
        assert_eq!(response.status, 401, "{fault}: {}", response.body);
        assert_eq!(response.header("www-authenticate"), Some("Bearer"), "{fault}");
    };
    for method in ["POST", "GET", "DELETE", "OPTIONS", "PUT", "HEAD", "PATCH"] {
        let mut request = get("/mcp");
        *request.method_mut() = method.parse().expect("a method");
        request
            .headers_mut()
            .insert("accept", HeaderValue::from_static("image/png"));
        challenged(request, method).await;
    }
    let too_large = "x".repeat(1025);
    let discover = r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#;
    for bearer in [None, Some("Bearer bad"), Some("Basic Z29vZA==")] {
        for (fault, headers, body) in [
            ("media type", &[("content-type", "text/plain")][..], "{}"),
            ("content coding", &[("content-encoding", "gzip")], "{}"),
            ("accept", &[("accept", "application/json")], "{}"),
            ("empty body", &[], ""),
            ("no JSON", &[], "{"),
            ("batch", &[], "[]"),
            ("body size", &[], too_large.as_str()),
            ("session id", &[("mcp-session-id", "unknown")], "{}"),
            ("version", &[("mcp-protocol-version", "1999-01-01")], "{}"),
            (
                "modern probe",
                &[
                    ("mcp-protocol-version", "2026-07-28"),
                    ("mcp-method", "server/discover"),
                ],
                discover,
            ),
            (
                "modern without _meta",
                &[("mcp-protocol-version", "2026-07-28")],
                discover,
            ),
            (
                "headers unlike the body",
                &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?!?=")],
                discover,
            ),
        ] {
            let mut request = valid_post(body);
            let all = request.headers_mut();
            all.remove("authorization");
            for (name, value) in headers
                .iter()
                .copied()
                .chain(bearer.map(|bearer| ("authorization", bearer)))
            {
                all.insert(name, HeaderValue::from_str(value).expect("a value"));
            }
            challenged(request, fault).await;
        }
    }
    assert!(broker.calls.entries().iter().all(|entry| entry == "authenticate"));
}

#[tokio::test]
async fn body_of_an_unauthenticated_request_is_never_read() {
    let broker = Harness::start().await;
    // A server that reads the body sends "100 Continue" first (RFC 9110 section 10.1.1).
    let head = |bearer: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer {bearer}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        )
    };
    let mut stream = broker.raw(head("bad").as_bytes()).await;
    let response = read_to_end(&mut stream).await;
    assert!(response.starts_with("HTTP/1.1 401"), "{response}");

    let mut stream = broker.raw(head("good").as_bytes()).await;
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.expect("a write");
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
}

#[tokio::test]
async fn other_methods_are_rejected_with_allow() {
    let broker = Harness::start().await;
    for method in ["OPTIONS", "PUT", "PATCH", "HEAD"] {
        let mut request = valid_post("{}");
        *request.method_mut() = method.parse().expect("a method");
        let response = broker.send(request).await;
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, POST, DELETE"));
    }
}

#[tokio::test]
async fn unsupported_media_types_are_rejected() {
    let broker = Harness::start().await;
    for accept in ["application/json", "text/event-stream", "text/html", "*/*;q=0"] {
        assert_rejected(&broker.send(with("accept", accept)).await, 406);
    }
    for accept in [
        "*/*",
        "application/*, text/*",
        "TEXT/Event-Stream;x=1, application/json;q=0.1",
    ] {
        assert_eq!(broker.send(with("accept", accept)).await.status, 200, "{accept}");
    }
    assert_eq!(broker.send(without("accept")).await.status, 200);
    for kind in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded"] {
        assert_rejected(&broker.send(with("content-type", kind)).await, 415);
    }
    assert_rejected(&broker.send(without("content-type")).await, 415);
    assert_rejected(&broker.send(with("content-encoding", "gzip")).await, 415);
    let utf8 = "Application/JSON; charset=utf-8";
    assert_eq!(broker.send(with("content-type", utf8)).await.status, 200);

    let mut listen = with("accept", "application/json");
    *listen.method_mut() = http::Method::GET;
    assert_rejected(&broker.send(listen).await, 406);
    let mut delete = without("accept");
    *delete.method_mut() = http::Method::DELETE;
    delete.headers_mut().remove("content-type");
    assert_eq!(broker.send(delete).await.body, "DELETE /mcp 0 from the caller");
}

#[tokio::test]
async fn panic_ends_only_its_own_request() {
    let broker = Harness::start().await;
    assert_rejected(&broker.send(valid_post("panic")).await, 500);
    assert_eq!(broker.send(valid_post("{}")).await.status, 200);
}

#[tokio::test]
async fn closed_connection_aborts_its_request() {
    let broker = Harness::start().await;
    let body = "slow";
    let head = "POST /mcp HTTP/1.1\r\nhost: mcp.example\r\nauthorization: Bearer good\r\n\
                content-type: application/json\r\ncontent-length: 4\r\n\r\n";
    let stream = broker.raw(format!("{head}{body}").as_bytes()).await;
    broker.mcp.begun.notified().await;
    assert_eq!(broker.mcp.release.receiver_count(), 1);
    drop(stream);
    broker.mcp.release.closed().await;
}

#[tokio::test]
async fn unauthenticated_request_with_a_large_body_gets_401() {
    let broker = Harness::start().await;
    for size in [10, 10_000, 100_000, 3_000_000] {
        let mut request = valid_post(&"x".repeat(size));
        request.headers_mut().remove("authorization");
        let response = broker.send(request).await;
        assert_eq!(response.status, 401, "{size}");
    }
}

#[tokio::test]
async fn trailing_slash_is_served_as_mcp() {
    let broker = Harness::start().await;
    let mut request = valid_post("{}");
    *request.uri_mut() = "/mcp/".parse().expect("a URI");
    assert_eq!(broker.send(request).await.body, "POST /mcp 2 from the caller");
    let response = broker.send(get("/mcp/")).await;
    assert_eq!(
        (response.status, response.header("www-authenticate")),
        (401, Some("Bearer"))
    );
}

#[tokio::test]
async fn browser_gets_the_challenge_with_a_page() {
    let broker = Harness::with(config("https://mcp.example/a")).await;
    let opened = |accept: &'static str, bearer: Option<&'static str>| {
        let mut request = get("/a/mcp");
        let headers = request.headers_mut();
        headers.insert("accept", HeaderValue::from_static(accept));
        headers.extend(bearer.map(|bearer| (http::header::AUTHORIZATION, HeaderValue::from_static(bearer))));
        broker.send(request)
    };
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = opened(browser, None).await;
    assert_eq!((page.status, page.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("href=\"/a/\""), "{}", page.body);
    for (accept, bearer) in [
        ("text/event-stream", None),
        ("*/*", None),
        ("text/html;q=0", None),
        (browser, Some("Bearer bad")),
    ] {
        let response = opened(accept, bearer).await;
        assert_eq!((response.status, response.body.as_str()), (401, "who?"), "{accept}");
    }
}
