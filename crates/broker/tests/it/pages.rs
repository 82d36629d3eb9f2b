//! All paths but `/mcp`: the authority's routes, health, the index, prefixes.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use crate::harness::{Harness, config, get};

fn head(path: &str) -> Request<Full<Bytes>> {
    let mut request = get(path);
    *request.method_mut() = http::Method::HEAD;
    request
}

#[tokio::test]
async fn oauth_and_well_known_paths_reach_the_authority() {
    let broker = Harness::start().await;
    for (path, seen) in [
        ("/oauth/authorize?a=b%20c", "GET /oauth/authorize?a=b%20c 0"),
        (
            "/.well-known/oauth-protected-resource",
            "GET /.well-known/oauth-protected-resource 0",
        ),
        (
            "/.well-known/oauth-protected-resource/mcp",
            "GET /.well-known/oauth-protected-resource/mcp 0",
        ),
    ] {
        let response = broker.send(get(path)).await;
        assert_eq!((response.status, response.body.as_str()), (200, seen));
    }
    let mut form = get("/oauth/token");
    *form.method_mut() = http::Method::POST;
    *form.body_mut() = Full::from("grant_type=x");
    assert_eq!(broker.send(form).await.body, "POST /oauth/token 12");
}

#[tokio::test]
async fn prefix_is_stripped_and_the_root_still_works() {
    let broker = Harness::with(config("https://mcp.example/a/b")).await;
    for (path, seen) in [
        ("/a/b/oauth/token?x=1", "GET /oauth/token?x=1 0"),
        ("/oauth/token", "GET /oauth/token 0"),
        (
            "/a/b/.well-known/openid-configuration",
            "GET /.well-known/openid-configuration 0",
        ),
        (
            "/.well-known/oauth-protected-resource/a/b/mcp",
            "GET /.well-known/oauth-protected-resource/a/b/mcp 0",
        ),
    ] {
        assert_eq!(broker.send(get(path)).await.body, seen);
    }
    assert_eq!(broker.send(get("/a/b/mcp")).await.status, 401);
    assert!(
        broker
            .send(get("/a/b"))
            .await
            .body
            .contains("https://mcp.example/a/b/mcp")
    );
    assert_eq!(broker.send(get("/a/bmcp")).await.status, 404);
}

#[tokio::test]
async fn host_is_checked_except_for_health_and_readiness() {
    let broker = Harness::start().await;
    for (path, status) in [
        ("/", 403),
        ("/oauth/token", 403),
        ("/.well-known/oauth-authorization-server", 403),
        ("/nowhere", 403),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 403),
    ] {
        let mut request = get(path);
        request
            .headers_mut()
            .insert("host", "10.0.0.7:8080".parse().expect("a host"));
        assert_eq!(broker.send(request).await.status, status, "{path}");
    }
    assert!(broker.calls.entries().is_empty());
}

#[tokio::test]
async fn health_reports_the_build_and_depends_on_no_probe() {
    let broker = Harness::start().await;
    broker.store.0.send_replace(false);
    let response = broker.send(get("/healthz")).await;
    let expected = serde_json::json!({ "status": "ok", "version": "1.2.3", "revision": "abc" });
    assert_eq!((response.status, response.json()), (200, expected));
}

#[tokio::test]
async fn failing_probe_is_not_ready_without_the_reason() {
    let broker = Harness::start().await;
    for (store, program, status, text) in [
        (true, true, 200, "ready\n"),
        (true, false, 503, "not ready: program\n"),
        (false, false, 503, "not ready: program, store\n"),
        (true, true, 200, "ready\n"),
    ] {
        broker.store.0.send_replace(store);
        broker.program.0.send_replace(program);
        // A result holds for a second.
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(2)).await;
        tokio::time::resume();
        let response = broker.send(get("/readyz")).await;
        assert_eq!((response.status, response.body.as_str()), (status, text));
    }
}

#[tokio::test]
async fn index_shows_the_mcp_url() {
    let broker = Harness::start().await;
    let response = broker.send(get("/")).await;
    assert_eq!(response.status, 200);
    assert!(response.body.contains("https://mcp.example/mcp"));
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_rejected() {
    let broker = Harness::start().await;
    for path in ["/metrics", "/mcp//", "/oauth", "/favicon.ico"] {
        assert_eq!(broker.send(get(path)).await.status, 404, "{path}");
    }
    let mut post = get("/");
    *post.method_mut() = http::Method::POST;
    let response = broker.send(post).await;
    assert_eq!((response.status, response.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn head_returns_the_headers_of_get_without_the_body() {
    let broker = Harness::start().await;
    for path in ["/", "/healthz", "/readyz", "/nowhere"] {
        let full = broker.send(get(path)).await;
        let mut over_h2 = head(path);
        *over_h2.uri_mut() = format!("http://mcp.example{path}").parse().expect("a URL");
        over_h2.headers_mut().remove("host");
        for short in [broker.send(head(path)).await, broker.send_h2(over_h2).await] {
            assert_eq!((short.status, short.body.as_str()), (full.status, ""), "{path}");
            let length = full.body.len().to_string();
            assert_eq!(short.header("content-length"), Some(length.as_str()));
        }
    }
}

#[tokio::test]
async fn head_reaches_the_authority_as_head() {
    // The authority may treat HEAD differently: a GET of one of its paths has a side effect.
    let broker = Harness::start().await;
    let path = "/.well-known/oauth-authorization-server";
    let short = broker.send(head(path)).await;
    assert_eq!((short.status, short.body.as_str()), (200, ""));
    let expected = format!("HEAD {path} 0");
    assert_eq!(broker.calls.entries(), [expected]);
}
