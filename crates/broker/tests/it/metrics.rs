//! `/metrics`: off by default, optionally protected by a token; counting of requests.

use std::sync::{Arc, Mutex};

use broker::ports::{CompletedRequest, Metrics, PortError};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::SecretString;

use crate::harness::{Harness, Received, config, get, valid_post};

/// Records all completed requests.
#[derive(Debug, Default)]
struct RecordingMetrics {
    answered: Mutex<Vec<CompletedRequest>>,
    broken: bool,
}

impl Metrics for RecordingMetrics {
    fn text(&self) -> Result<String, PortError> {
        if self.broken {
            return Err("SECRET-REASON".into());
        }
        Ok("# EOF\n".to_owned())
    }

    fn request_completed(&self, answered: CompletedRequest) {
        self.answered.lock().expect("a lock").push(answered);
    }
}

async fn broker_with_metrics(counter: &Arc<RecordingMetrics>, token: Option<&str>) -> Harness {
    let metrics = Arc::clone(counter);
    let token = token.map(SecretString::from);
    Harness::with_change(config("https://mcp.example/prefix"), |broker| {
        broker.with_metrics(metrics, token)
    })
    .await
}

fn with_token(token: &str) -> Request<Full<Bytes>> {
    let mut request = get("/metrics");
    let value = token.parse().expect("a header");
    request.headers_mut().append("authorization", value);
    request
}

fn assert_exposition(response: &Received) {
    assert_eq!((response.status, response.body.as_str()), (200, "# EOF\n"));
    assert_eq!(
        response.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn metrics_are_served_for_allowed_hosts_and_under_the_prefix() {
    let broker = broker_with_metrics(&Arc::default(), None).await;
    let mut foreign = get("/metrics");
    let host = "10.0.0.7:8080".parse().expect("a host");
    foreign.headers_mut().insert("host", host);
    assert_eq!(broker.send(foreign).await.status, 403);
    for (path, host) in [("/metrics", "mcp.example"), ("/prefix/metrics", "mcp.example")] {
        let mut request = get(path);
        request.headers_mut().insert("host", host.parse().expect("a host"));
        assert_exposition(&broker.send(request).await);
    }
    let mut head = get("/metrics");
    *head.method_mut() = Method::HEAD;
    let response = broker.send(head).await;
    assert_eq!((response.status, response.body.as_str()), (200, ""));
    let mut post = get("/metrics");
    *post.method_mut() = Method::POST;
    let response = broker.send(post).await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn metrics_with_a_token_require_it() {
    let broker = broker_with_metrics(&Arc::default(), Some("the-token")).await;
    for wrong in [
        "",
        "Bearer ",
        "Bearer the-toke",
        "Bearer the-token2",
        "Bearer  the-token",
        "Basic the-token",
        "the-token",
        "Bearer good",
    ] {
        let response = broker.send(with_token(wrong)).await;
        assert_eq!(
            (response.status, response.header("www-authenticate")),
            (401, Some("Bearer"))
        );
    }
    assert_eq!(broker.send(get("/metrics")).await.status, 401);
    let mut twice = with_token("Bearer the-token");
    let again = "Bearer the-token".parse().expect("a header");
    twice.headers_mut().append("authorization", again);
    assert_eq!(broker.send(twice).await.status, 401);
    for right in ["Bearer the-token", "bearer the-token"] {
        assert_exposition(&broker.send(with_token(right)).await);
    }
}

#[tokio::test]
async fn metrics_encoding_failure_is_500_without_the_reason() {
    let counter = RecordingMetrics {
        broken: true,
        ..RecordingMetrics::default()
    };
    let broker = broker_with_metrics(&Arc::new(counter), None).await;
    let response = broker.send(get("/metrics")).await;
    assert_eq!(response.status, 500);
    assert!(!response.body.contains("SECRET"));
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_path() {
    let counter = Arc::<RecordingMetrics>::default();
    let broker = broker_with_metrics(&counter, None).await;
    broker.send(valid_post("{}")).await;
    for path in [
        "/mcp",
        "/oauth/token?code=secret",
        "/healthz",
        "/readyz",
        "/metrics",
        "/",
        "/whatever-a-client-likes",
    ] {
        broker.send(get(path)).await;
    }
    let counted: Vec<_> = counter.answered.lock().expect("a lock").clone();
    let counted: Vec<_> = counted.iter().map(|one| (one.route, one.status)).collect();
    let expected = [
        ("mcp", StatusCode::OK),
        ("mcp", StatusCode::UNAUTHORIZED),
        ("oauth", StatusCode::OK),
        ("healthz", StatusCode::OK),
        ("readyz", StatusCode::OK),
        ("metrics", StatusCode::OK),
        ("index", StatusCode::OK),
        ("unknown", StatusCode::NOT_FOUND),
    ];
    assert_eq!(counted, expected);
}
