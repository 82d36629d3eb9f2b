//! `/metrics`: off by default, for whoever has the token, and what the face counts of itself.

use std::sync::{Arc, Mutex};

use broker::ports::{BoxError, CompletedRequest, Metrics};
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::SecretString;

use crate::harness::{Harness, Received, config, get, good};

/// Remembers what it is told.
#[derive(Debug, Default)]
struct Counter {
    answered: Mutex<Vec<CompletedRequest>>,
    broken: bool,
}

impl Metrics for Counter {
    fn text(&self) -> Result<String, BoxError> {
        if self.broken {
            return Err("SECRET-REASON".into());
        }
        Ok("# EOF\n".to_owned())
    }

    fn request_completed(&self, answered: CompletedRequest) {
        self.answered.lock().expect("a lock").push(answered);
    }
}

async fn counting(counter: &Arc<Counter>, token: Option<&str>) -> Harness {
    let metrics = Arc::clone(counter);
    let token = token.map(SecretString::from);
    Harness::changed(config("https://mcp.example/prefix"), |broker| {
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

fn is_exposition(said: &Received) {
    assert_eq!((said.status, said.body.as_str()), (200, "# EOF\n"));
    assert_eq!(
        said.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert_eq!(said.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn whoever_watches_reads_them_by_address_and_under_the_prefix() {
    let broker = counting(&Arc::default(), None).await;
    for (path, host) in [
        ("/metrics", "10.0.0.7:8080"),
        ("/metrics", "mcp.example"),
        ("/prefix/metrics", "mcp.example"),
    ] {
        let mut request = get(path);
        request.headers_mut().insert("host", host.parse().expect("a host"));
        is_exposition(&broker.send(request).await);
    }
    let mut head = get("/metrics");
    *head.method_mut() = Method::HEAD;
    let said = broker.send(head).await;
    assert_eq!((said.status, said.body.as_str()), (200, ""));
    let mut post = get("/metrics");
    *post.method_mut() = Method::POST;
    let said = broker.send(post).await;
    assert_eq!((said.status, said.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn with_a_token_they_are_for_whoever_has_it() {
    let broker = counting(&Arc::default(), Some("the-token")).await;
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
        let said = broker.send(with_token(wrong)).await;
        assert_eq!((said.status, said.header("www-authenticate")), (401, Some("Bearer")));
    }
    assert_eq!(broker.send(get("/metrics")).await.status, 401);
    let mut twice = with_token("Bearer the-token");
    let again = "Bearer the-token".parse().expect("a header");
    twice.headers_mut().append("authorization", again);
    assert_eq!(broker.send(twice).await.status, 401);
    for right in ["Bearer the-token", "bearer the-token"] {
        is_exposition(&broker.send(with_token(right)).await);
    }
}

#[tokio::test]
async fn metrics_that_cannot_be_written_down_are_500_without_the_reason() {
    let counter = Counter {
        broken: true,
        ..Counter::default()
    };
    let broker = counting(&Arc::new(counter), None).await;
    let said = broker.send(get("/metrics")).await;
    assert_eq!(said.status, 500);
    assert!(!said.body.contains("SECRET"));
}

#[tokio::test]
async fn each_exchange_is_counted_by_where_it_led_and_not_by_what_the_client_wrote() {
    let counter = Arc::<Counter>::default();
    let broker = counting(&counter, None).await;
    broker.send(good("{}")).await;
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
