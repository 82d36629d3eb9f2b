//! DNS rebinding, forged hosts, oversized and ambiguous requests, and session ids of other users.

use std::collections::BTreeSet;

use http::{Method, StatusCode};

use super::{Attacker, FORM_TYPE, JSON_TYPE, REDIRECT};
use crate::harness::{
    Harness, login_of,
    messages::{initialize_request, tools_list_request},
    open_session,
};

/// Paths of the broker that need no access token.
const PATHS: [&str; 6] = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-protected-resource/mcp",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/oauth/authorize?client_id=x",
    "/oauth/callback?state=x",
];

/// GHSA-w48q-cv73-mx4w and similar: a web page whose host name resolves to 127.0.0.1.
#[tokio::test]
async fn dns_rebinding_is_rejected_by_host_and_origin() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let before = harness.broker.children().unwrap().len();
    for (name, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:1"),
    ] {
        let mut headers = alice.another_session().headers();
        headers.insert(name, value.parse().unwrap());
        // The rejection comes before a session opens, even with a valid access token.
        let answer = alice.raw(Method::POST, headers, initialize_request(1)).await.unwrap();
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert!(answer.header("mcp-session-id").is_none());
    }
    assert_eq!(harness.broker.children().unwrap().len(), before);
}

/// Every URL in a response derives from `public_url`, never from headers of the request.
#[tokio::test]
async fn forged_host_appears_in_no_response() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
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

/// CVE-2025-6515, CVE-2026-33946: a session id has 192 random bits and is useless without an access
/// token of its grant.
#[tokio::test]
async fn session_ids_are_unguessable_and_do_not_authenticate() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let mut ids = BTreeSet::new();
    for _ in 0..8 {
        let session = alice.another_session();
        open_session(&session).await;
        ids.insert(session.session_id().unwrap());
    }
    assert_eq!(ids.len(), 8);
    let halves: BTreeSet<&str> = ids.iter().flat_map(|id| [&id[..24], &id[24..]]).collect();
    assert_eq!(halves.len(), 16, "a half of an id repeats");
    assert!(ids.iter().all(|id| id.len() == 48));

    let bob = harness.in_session("bob").await;
    for id in &ids {
        let thief = bob.another_session();
        thief.set_session_id(Some(id));
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let body = tools_list_request(1);
            let answer = thief.raw(method.clone(), thief.headers(), body.clone()).await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{method}");
            let mut headers = thief.headers();
            headers.remove("authorization");
            let answer = thief.raw(method, headers, body).await.unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        }
    }
    assert_eq!(login_of(&bob).await, "bob");
    assert_eq!(harness.broker.children().unwrap().len(), 9, "no session has ended");
}

/// Every input has a limit, beyond which it is rejected. The broker keeps serving.
#[tokio::test]
async fn oversized_input_is_rejected_and_the_broker_keeps_serving() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::new(&harness);
    let long = |length: usize| "x".repeat(length);
    let mut tried = 0;
    for (method, path, headers, body) in [
        ("POST", "/oauth/register".to_owned(), vec![JSON_TYPE], long(1 << 20)),
        (
            "POST",
            "/oauth/register".to_owned(),
            vec![JSON_TYPE],
            format!("{{\"redirect_uris\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000)),
        ),
        ("POST", "/oauth/token".to_owned(), vec![FORM_TYPE], long(1 << 20)),
        ("POST", "/oauth/revoke".to_owned(), vec![FORM_TYPE], long(1 << 20)),
        ("POST", "/oauth/authorize".to_owned(), vec![FORM_TYPE], long(1 << 20)),
        ("POST", "/oauth/token".to_owned(), vec![FORM_TYPE], "a=b&".repeat(8_000)),
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
        // The broker may close the connection before the whole request is sent: then there is no
        // response.
        if let Ok(reply) = attacker.send(method, &path, &headers, body).await {
            assert!(reply.status.is_client_error(), "{what}: {}", reply.status);
            assert!(reply.body.len() < 8_192, "{what}: the response is short");
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

/// RFC 6749 section 3.1, RFC 6750 section 2.1: repeated parameters and headers are rejected.
#[tokio::test]
async fn ambiguous_requests_are_rejected() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::new(&harness);
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

/// A path is not normalized to another route.
#[tokio::test]
async fn paths_that_resemble_a_route_do_not_reach_it() {
    let harness = Harness::new(&[]).await;
    let attacker = Attacker::new(&harness);
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

/// A client that sends long paths, methods and names fills neither the log nor a line of it.
#[tokio::test]
async fn long_text_of_a_client_is_cut_in_the_log() {
    let harness = Harness::new(&[("log.filter", "debug")]).await;
    let alice = harness.in_session("alice").await;
    let attacker = Attacker::new(&harness);
    let long = "x".repeat(60_000);
    for (method, path) in [
        ("GET", format!("/{long}")),
        ("GET", format!("/oauth/authorize?client_id={long}")),
        (long.as_str(), "/mcp".to_owned()),
    ] {
        let sent = attacker.send(method, &path, &[("user-agent", &long)], "").await;
        assert!(sent.is_ok_and(|reply| reply.status.is_client_error()));
    }
    attacker.register_client(&"y".repeat(60), REDIRECT).await;
    assert_eq!(login_of(&alice).await, "alice");
    harness.broker.log().contains("request completed").await;
    let log = harness.broker.log().text();
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest < 2048, "a line of {longest} bytes");
}
