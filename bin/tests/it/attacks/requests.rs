//! Requests that are not what they seem, and sessions that are not one's own.

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::json;

use super::Attacker;
use crate::harness::{Harness, login_of, open};

/// Everything that the broker answers, but `/mcp`.
const PATHS: [&str; 6] = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/oauth/authorize?client_id=x",
    "/oauth/callback?state=x",
];

/// GHSA-w48q-cv73-mx4w and its like: a page whose name was bound to 127.0.0.1.
#[tokio::test]
async fn dns_rebinding_reaches_nothing() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.broker.children().unwrap().len();
    let initialize = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "x", "version": "1" } },
    });
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
    ] {
        let mut headers = alice.another_session().headers();
        headers.insert(name, value.parse().unwrap());
        // Refused with a good bearer, before a session is made.
        let answer = alice.raw(Method::POST, headers, initialize.to_string()).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert!(answer.header("mcp-session-id").is_none());
    }
    assert_eq!(harness.broker.children().unwrap().len(), before);
}

/// Everything that is published derives from `public_url`, never from what a request says of the host.
#[tokio::test]
async fn a_poisoned_host_is_in_no_answer() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    for path in PATHS {
        let reply = attacker.get(path, &[("host", "evil.example")]).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{path}");
        assert!(!reply.body.contains("evil.example"));
        for header in ["x-forwarded-host", "forwarded", "x-forwarded-proto", "x-original-url"] {
            let value = match header {
                "forwarded" => "host=evil.example;proto=https",
                "x-forwarded-proto" => "evil",
                _ => "evil.example",
            };
            let reply = attacker.get(path, &[(header, value)]).await;
            assert!(!format!("{:?}{}", reply.headers, reply.body).contains("evil"), "{path}");
        }
    }
    let challenge = attacker.get("/mcp", &[("x-forwarded-host", "evil.example")]).await;
    assert_eq!(challenge.status, StatusCode::UNAUTHORIZED);
    assert!(challenge.header("www-authenticate").contains(&harness.broker.url()));
}

/// CVE-2025-6515, CVE-2026-33946: 192 random bits, and no use without the bearer of its grant.
#[tokio::test]
async fn session_ids_cannot_be_guessed_and_are_no_authentication() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let mut ids = BTreeSet::new();
    for _ in 0..8 {
        let session = alice.another_session();
        open(&session).await;
        ids.insert(session.session_id().unwrap());
    }
    assert_eq!(ids.len(), 8);
    let halves: BTreeSet<&str> = ids.iter().flat_map(|id| [&id[..24], &id[24..]]).collect();
    assert_eq!(halves.len(), 16, "no part repeats");
    assert!(ids.iter().all(|id| id.len() == 48));

    let bob = harness.in_session("bob").await;
    for id in &ids {
        let thief = bob.another_session();
        thief.set_session_id(Some(id));
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
            let answer = thief.raw(method.clone(), thief.headers(), body).await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method}");
            let mut headers = thief.headers();
            headers.remove("authorization");
            let answer = thief.raw(method, headers, body).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(login_of(&bob).await, "bob");
    assert_eq!(
        harness.broker.children().unwrap().len(),
        9,
        "none of it ended a session"
    );
}

/// Every input has a limit, and a refusal that says so; the broker goes on.
#[tokio::test]
async fn oversized_everything_is_refused_and_harms_nobody() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::of(&harness);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let json_type = ("content-type", "application/json");
    let long = |length: usize| "x".repeat(length);
    let mut tried = 0;
    for (method, path, headers, body) in [
        ("POST", "/oauth/register".to_owned(), vec![json_type], long(1 << 20)),
        (
            "POST",
            "/oauth/register".to_owned(),
            vec![json_type],
            format!("{{\"redirect_uris\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)),
        ),
        ("POST", "/oauth/token".to_owned(), vec![form], long(1 << 20)),
        ("POST", "/oauth/revoke".to_owned(), vec![form], long(1 << 20)),
        ("POST", "/oauth/authorize".to_owned(), vec![form], long(1 << 20)),
        ("POST", "/oauth/token".to_owned(), vec![form], "a=b&".repeat(8_000)),
        (
            "GET",
            format!("/oauth/authorize?client_id={}", long(16_000)),
            vec![],
            String::new(),
        ),
        (
            "GET",
            format!("/oauth/callback?state={}", long(16_000)),
            vec![],
            String::new(),
        ),
        ("GET", format!("/{}", long(100_000)), vec![], String::new()),
    ] {
        let what = format!("{method} {}", path.get(..24).unwrap_or(&path));
        // The broker may close before all of it is sent: then there is no answer to read.
        if let Ok(reply) = attacker.send(method, &path, &headers, body).await {
            assert!(reply.status.is_client_error(), "{what}: {}", reply.status);
            assert!(reply.body.len() < 8_192, "{what}: the refusal is short");
        }
        tried += 1;
    }
    assert_eq!(tried, 9);
    let (many, cookie, bearer) = (
        long(100_000),
        format!("fmb-browser={}", long(30_000)),
        format!("Bearer {}", long(30_000)),
    );
    for headers in [
        ("x-padding", many.as_str()),
        ("cookie", cookie.as_str()),
        ("authorization", bearer.as_str()),
    ] {
        if let Ok(reply) = attacker.send("GET", "/mcp", &[headers], "").await {
            assert!(reply.status.is_client_error(), "{}: {}", headers.0, reply.status);
        }
    }
    assert_eq!(login_of(&alice).await, "alice");
}

/// RFC 6749 section 3.1, RFC 6750 section 2.1: what could be read in two ways is not read at all.
#[tokio::test]
async fn ambiguous_requests_are_refused() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::of(&harness);
    let token = alice.access_token().unwrap();
    let bearer = format!("Bearer {token}");
    let two = [("authorization", bearer.as_str()), ("authorization", "Bearer other")];
    let reply = attacker.send("POST", "/mcp", &two, "{}").await.unwrap();
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let refresh = alice.refresh_token().unwrap();
    let id = alice.client_id().unwrap();
    for fields in [
        &[("client_id", "another"), ("client_id", id.as_str())][..],
        &[("client_id", id.as_str()), ("refresh_token", "another")],
        &[("client_id", id.as_str()), ("grant_type", "authorization_code")],
    ] {
        let mut all = vec![("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
        all.extend(fields);
        let reply = attacker.post_form("/oauth/token", &all).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{fields:?}: {}", reply.body);
        assert_eq!(reply.error(), "invalid_request", "{fields:?}");
    }
    alice.refresh().await.unwrap();
}

/// A path that only looks like another one is another one.
#[tokio::test]
async fn paths_cannot_be_disguised() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::of(&harness);
    for path in [
        "//mcp",
        "/mcp/",
        "/MCP",
        "/%6dcp",
        "/oauth/..%2fmcp",
        "/oauth//token",
        "/oauth/token/",
        "/metrics%00",
        "/.well-known/oauth-protected-resource/../../mcp%2f",
    ] {
        let reply = attacker.get(path, &[]).await;
        assert!(
            [404, 400, 401].contains(&reply.status.as_u16()),
            "{path}: {}",
            reply.status
        );
        assert!(reply.headers.get("mcp-session-id").is_none());
    }
}
