//! The twelve rules of the session contract, one test for each, over real HTTP with real children.
//!
//! The tests of the crate `session` check the same rules on paused time with scripted backends.
//! Responses of `/mcp` that do not depend on sessions are in `mcp_responses`, restarts in
//! `lifecycle`, and `chaos` combines everything.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::{
    Broker, BuildInfo, PublicUrl,
    ports::{Authority, BoxFuture, GrantKey, McpAnswer, McpService, ResponseBody},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, request::Parts};
use serde_json::{Value, json};
use session::{
    Registry,
    ports::{Backend, SpawnError, SpawnOrder, Spawner},
};
use testkit::{
    Client,
    forgejo::{Fault, Times},
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{
    FORGEJO_TOKEN_ENDPOINT, Harness, SHORT_IDLE_TIMEOUT, WAIT_LIMIT, login_of,
    messages::{assert_error, initialize_request, initialize_until, tools_list_request},
    open_session, sign_in, start_endless_call,
};

/// The advertised lifetime of a Forgejo token in tests of rotation. Sessions move at half of it.
const TOKEN_LIFETIME: Duration = Duration::from_secs(4);

/// A harness whose Forgejo tokens are renewed every few seconds.
async fn with_short_lived_tokens() -> Harness {
    let harness = Harness::new(&[
        ("session.rotate_interval", "100ms"),
        ("log.filter", "info,session=debug"),
    ])
    .await;
    // Tokens are valid longer than advertised, so that a slow machine does not fail a sign-in or a
    // renewal.
    harness
        .forgejo
        .set_lifetimes(TOKEN_LIFETIME * 8, Duration::from_secs(3600));
    harness.forgejo.set_advertised_lifetime(TOKEN_LIFETIME);
    harness
}

/// The status of a `tools/list` request. Its response must carry the id of the request, unless it
/// is 401.
async fn status_of(client: &Client) -> u16 {
    let (answer, id) = client.request("tools/list", json!({})).await.unwrap();
    if answer.status != 401 {
        assert_eq!(answer.json()["id"], id);
    }
    answer.status.as_u16()
}

/// `initialize` without a session id starts a backend and issues an id of 192 bits in lower-case
/// hex. Any other message without a session id is 400.
#[tokio::test]
async fn rule_01_only_initialize_without_a_session_id_starts_a_backend_and_issues_an_id() {
    let harness = Harness::new(&[("session.sessionless_legacy", "false")]).await;
    let alice = harness.signed_in("alice").await;
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    assert_error(&alice.post(tools_list_request("early")).await.unwrap(), 400, "early");
    assert_error(&alice.post(notification.to_string()).await.unwrap(), 400, Value::Null);
    assert!(harness.broker.children().unwrap().is_empty());

    open_session(&alice).await;
    let id = alice.session_id().unwrap();
    assert!(
        id.len() == 48 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{id}"
    );
    assert_eq!(harness.broker.children().unwrap().len(), 1);
    let second = alice.another_session();
    open_session(&second).await;
    assert_ne!(second.session_id().unwrap(), id);
    assert_eq!(harness.broker.children().unwrap().len(), 2);
}

/// A session id is bound to its grant: an access token of another grant gets 403, a refreshed one
/// of the same grant is accepted.
#[tokio::test]
async fn rule_02_session_id_is_bound_to_its_grant() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let bob = harness.signed_in("bob").await;
    // Her second client has another grant of the same user.
    let hers = harness.client().with_redirect_uri("http://127.0.0.1/another-client");
    sign_in(&hers, "alice").await;
    for intruder in [&bob, &hers] {
        intruder.set_session_id(alice.session_id().as_deref());
        assert_error(&intruder.post(tools_list_request("x")).await.unwrap(), 403, "x");
        for method in [Method::DELETE, Method::GET] {
            let answer = intruder.raw(method, intruder.headers(), "").await.unwrap();
            assert_eq!(answer.status, 403);
        }
    }

    let before = alice.access_token();
    alice.refresh().await.unwrap();
    assert_ne!(alice.access_token(), before);
    assert_eq!(login_of(&alice).await, "alice");
}

/// An unknown session id is 410 and an ended one 404, with the id of the request. One setting makes
/// both 404.
#[tokio::test]
async fn rule_03_unknown_session_is_410_or_as_configured_and_ended_session_is_404() {
    for (setting, unknown) in [("410", 410), ("404", 404)] {
        let harness = Harness::new(&[("session.unknown_status", setting)]).await;
        let alice = harness.in_session("alice").await;
        let id = alice.session_id().unwrap();
        alice.delete().await.unwrap();
        for (id, status) in [
            (id.as_str(), 404),
            ("0".repeat(48).as_str(), unknown),
            ("nonsense", unknown),
        ] {
            alice.set_session_id(Some(id));
            assert_error(&alice.post(tools_list_request("seven")).await.unwrap(), status, "seven");
        }
    }
}

/// A quota for each user (429) and one for all (503), both with `Retry-After` and checked before a
/// backend starts. The response to the first lists the user's sessions.
#[tokio::test]
async fn rule_04_quotas_are_checked_before_a_backend_starts() {
    let harness = Harness::new(&[("session.max_sessions", "3"), ("session.max_sessions_per_user", "2")]).await;
    let alice = harness.in_session("alice").await;
    let second = alice.another_session();
    open_session(&second).await;
    let third = alice.another_session();
    let answer = third.post(initialize_request(3)).await.unwrap();
    let error = assert_error(&answer, 429, 3);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(error["data"]["sessions"].as_array().unwrap().len(), 2, "{error}");
    assert!(
        !error.to_string().contains(&alice.session_id().unwrap()),
        "a session id is a secret"
    );

    // A user's quota does not affect other users; the quota for all does.
    let bob = harness.in_session("bob").await;
    let answer = bob.another_session().post(initialize_request("b")).await.unwrap();
    assert_error(&answer, 503, "b");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(harness.broker.children().unwrap().len(), 3);

    second.delete().await.unwrap();
    // The quota is released only when the child has exited, so that quotas bound the number of
    // processes.
    initialize_until(&third, StatusCode::OK).await;
}

/// A request without a caller is 500 and starts no backend. The broker's own bearer check rejects
/// such a request with 401, so the 500 is shown with an authority that adds no caller.
#[tokio::test]
async fn rule_05_request_without_a_caller_is_500_and_starts_no_backend() {
    let harness = Harness::new(&[]).await;
    let client = harness.client();
    for token in [None, Some("fmb_at_nonsense")] {
        client.set_access_token(token);
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let answer = client
                .raw(method, client.headers(), initialize_request(1))
                .await
                .unwrap();
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            let challenge = answer.header("www-authenticate").unwrap();
            let metadata = format!("{}/.well-known/oauth-protected-resource", harness.broker.url());
            assert!(
                challenge.starts_with("Bearer ") && challenge.contains(&metadata),
                "{challenge}"
            );
            assert_eq!(
                challenge.contains("error=\"invalid_token\""),
                token.is_some(),
                "{challenge}"
            );
        }
    }
    assert!(harness.broker.children().unwrap().is_empty());

    let spawner = Arc::new(CountingSpawner::default());
    let registry = Registry::new(session::Config::default(), Arc::clone(&spawner) as _);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let build = BuildInfo {
        version: String::new(),
        revision: String::new(),
    };
    let config = broker::Config::new(PublicUrl::parse(&url).unwrap(), build);
    let broker = Broker::new(config, Arc::new(AuthorityWithoutCaller), Arc::new(Sessions(registry)));
    let shutdown = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(broker.serve(listener, shutdown.clone()));

    let client = Client::new(format!("{url}/mcp").parse().unwrap());
    assert_error(&client.post(initialize_request("x")).await.unwrap(), 500, "x");
    client.set_session_id(Some(&"0".repeat(48)));
    assert_error(&client.post(tools_list_request("x")).await.unwrap(), 500, "x");
    assert_eq!(spawner.spawns.load(Ordering::SeqCst), 0);
    shutdown.cancel();
    let served = timeout(WAIT_LIMIT, serving.join_next())
        .await
        .expect("the broker stops");
    served.unwrap().unwrap().unwrap();
}

/// A backend that dies is cleaned up at once, and each request in flight on it gets a clear error
/// with its id.
#[tokio::test]
async fn rule_06_dead_child_is_cleaned_up_at_once() {
    let harness = Harness::new(&[("session.retain", "0s")]).await;
    let alice = harness.in_session("alice").await;
    let hers = harness.only_child();
    let bob = harness.in_session("bob").await;
    let mut calls = start_endless_call(&harness, alice).await;
    hers.kill().unwrap();
    let (answer, id, alice) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let response = answer.response_to(&id).expect("the error has the id of the request");
    assert!(response["error"]["message"].is_string(), "{response}");

    // Nothing is retained, so the session ended with its child. Other sessions are unaffected.
    harness.broker.log().contains("session ended").await;
    assert_eq!(status_of(&alice).await, 404);
    assert_eq!(login_of(&bob).await, "bob");
    open_session(&alice.another_session()).await;
}

/// A backend that has been idle for `idle_timeout` is stopped. A request in flight keeps a session
/// active, an open GET stream alone does not.
#[tokio::test]
async fn rule_07_idle_child_is_stopped_unless_a_request_is_in_flight() {
    let harness = Harness::new(&SHORT_IDLE_TIMEOUT).await;
    // His request begins before hers: if it did not keep his session active, his child would be
    // stopped first.
    let bob = harness.in_session("bob").await;
    let mut calls = start_endless_call(&harness, bob).await;
    let his = harness.wait_for_children(1).await[0];
    let alice = harness.in_session("alice").await;
    let _listening = alice.listen(None).await.unwrap();
    assert_eq!(harness.wait_for_children(1).await, [his]);

    his.kill().unwrap();
    let (answer, id, bob) = calls.join_next().await.unwrap().unwrap();
    assert!(answer.response_to(&id).unwrap()["error"].is_object());
    assert_eq!(login_of(&bob).await, "bob");
    // No request is in flight now.
    harness.wait_for_children(0).await;
}

/// A session moves to a new backend before its token expires: the new backend is ready before the
/// old one stops, requests in flight finish, and the session id stays. A client that initializes
/// again with its session id is served too.
#[tokio::test]
async fn rule_08_session_moves_before_its_token_expires_and_keeps_its_id() {
    let harness = with_short_lived_tokens().await;
    let alice = harness.in_session("alice").await;
    let (session, first) = (alice.session_id(), harness.only_child());
    // A call that began on the old child finishes there, although the session moves meanwhile.
    // Its token outlives it, so that nothing ends the child before.
    let duration = TOKEN_LIFETIME * 3 / 4;
    let params = json!({ "name": "test_sleep", "arguments": { "ms": duration.as_millis() as u64 } });
    let (slow, ()) = tokio::join!(
        alice.request("tools/call", params),
        harness.broker.log().contains("session moved to a new backend")
    );
    let (slow, id) = slow.unwrap();
    assert!(slow.response_to(&id).unwrap()["result"].is_object());
    first.exited().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);

    let again = alice.post(initialize_request("again")).await.unwrap();
    assert_eq!((again.status.as_u16(), again.header("mcp-session-id")), (200, None));
    assert!(again.response_to(&json!("again")).unwrap()["result"].is_object());
    assert_eq!(login_of(&alice).await, "alice");
}

/// A permanent refresh failure ends the user's sessions and grants, so that the next request is
/// 401. A transient one ends nothing, and the session is served until its token expires.
#[tokio::test]
async fn rule_09_permanent_refresh_failure_ends_sessions_and_transient_one_does_not() {
    let harness = with_short_lived_tokens().await;
    let alice = harness.in_session("alice").await;
    let bob = harness.in_session("bob").await;
    harness.forgejo.revoke("alice");
    harness.broker.log().contains("session ended").await;
    assert_eq!(status_of(&alice).await, 401);
    assert_eq!(login_of(&bob).await, "bob");
    let again = harness.in_session("alice").await;
    assert_eq!(login_of(&again).await, "alice");

    let broken = Fault::Status(StatusCode::BAD_GATEWAY);
    harness
        .forgejo
        .inject(FORGEJO_TOKEN_ENDPOINT, broken, Times::UntilCleared);
    harness
        .broker
        .log()
        .contains("session is dormant: its credential expired")
        .await;
    let expiry = timeout(WAIT_LIMIT, async { while status_of(&bob).await == 200 {} });
    expiry.await.expect("his token expires");
    assert_eq!(status_of(&bob).await, 503);
    harness.forgejo.clear_faults();
    // During an outage the broker asks once a second.
    let recovery = timeout(WAIT_LIMIT, async { while status_of(&bob).await == 503 {} });
    recovery.await.expect("the outage is over");
    assert_eq!(login_of(&bob).await, "bob");
}

/// A stop ends every session within its deadline, even with requests in flight, and leaves no
/// child.
#[tokio::test]
async fn rule_10_stop_leaves_no_child() {
    for busy in [false, true] {
        let mut harness = Harness::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
        let alice = harness.in_session("alice").await;
        let _bob = harness.in_session("bob").await;
        let calls = match busy {
            true => start_endless_call(&harness, alice).await,
            false => JoinSet::new(),
        };
        let children = harness.broker.children().unwrap();
        assert_eq!(children.len(), 2);
        assert!(harness.broker.terminate().await.unwrap().success());
        assert!(children.iter().all(|child| !child.is_alive()));
        drop(calls);
    }
}

/// A durable session survives its backend's idleness, crash and restart: the next request starts a
/// new backend, which gets the recorded handshake. A crash loop is bounded and reported as such.
#[tokio::test]
async fn rule_11_durable_session_survives_idleness_crash_and_restart() {
    let mut harness = Harness::new(&SHORT_IDLE_TIMEOUT).await;
    let alice = harness.in_session("alice").await;
    let session = alice.session_id();
    harness.wait_for_children(0).await;
    assert_eq!(login_of(&alice).await, "alice");

    let mut calls = start_endless_call(&harness, alice).await;
    harness.wait_for_children(1).await[0].kill().unwrap();
    let (answer, id, alice) = calls.join_next().await.unwrap().unwrap();
    assert!(answer.response_to(&id).unwrap()["error"].is_object());
    assert_eq!(login_of(&alice).await, "alice");

    harness.restart().await;
    assert!(
        harness.broker.children().unwrap().is_empty(),
        "a restored session has no child before its next request"
    );
    assert_eq!(login_of(&alice).await, "alice");

    let exit = json!({ "name": "test_exit", "arguments": { "code": 3 } });
    let backoff = timeout(WAIT_LIMIT, async {
        loop {
            let (answer, id) = alice.request("tools/call", exit.clone()).await.unwrap();
            let error = answer.response_to(&id).unwrap()["error"].clone();
            match answer.status.as_u16() {
                200 => assert!(error.is_object()),
                status => {
                    assert_eq!(status, 503);
                    assert!(error["message"].as_str().unwrap().contains("keeps crashing"), "{error}");
                    return answer.header("retry-after").unwrap().parse().unwrap();
                }
            }
        }
    });
    let wait = backoff.await.expect("a crash loop is bounded");
    sleep(Duration::from_secs(wait)).await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);
}

/// Clients of 2026-07-28 are served without a session id, by one child. `initialize` never
/// negotiates a version above 2025-11-25.
#[tokio::test]
async fn rule_12_stateless_client_is_served_and_initialize_opens_a_session_of_2025_11_25() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    for method in ["server/discover", "tools/list", "server/discover"] {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "stateless", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let message = json!({ "jsonrpc": "2.0", "id": "m", "method": method, "params": { "_meta": meta } });
        let mut headers = alice.headers();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static(method));
        let answer = alice.raw(Method::POST, headers, message.to_string()).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        let response = answer.response_to(&json!("m")).unwrap();
        assert_eq!(response["result"]["resultType"], "complete");
        assert!(answer.header("mcp-session-id").is_none());
        assert_eq!(harness.broker.children().unwrap().len(), 1);
    }

    let params = json!({
        "protocolVersion": "2026-07-28",
        "capabilities": {},
        "clientInfo": { "name": "stateless", "version": "1" },
    });
    let (answer, id) = alice.request("initialize", params).await.unwrap();
    let result = &answer.response_to(&id).unwrap()["result"];
    assert_eq!(result["protocolVersion"], "2025-11-25", "{}", answer.text());
    assert!(answer.header("mcp-session-id").is_some());
}

/// Accepts every request and adds no caller to it.
#[derive(Debug)]
struct AuthorityWithoutCaller;

/// A registry without the program's wiring.
#[derive(Debug)]
struct Sessions(Registry);

/// Counts spawns; each fails.
#[derive(Debug, Default)]
struct CountingSpawner {
    spawns: AtomicUsize,
}

impl Authority for AuthorityWithoutCaller {
    fn authenticate<'a>(&'a self, _parts: &'a mut Parts) -> BoxFuture<'a, Result<GrantKey, Response<ResponseBody>>> {
        Box::pin(async { Ok(GrantKey("none".into())) })
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        panic!("unexpected request of {}", request.uri())
    }
}

impl McpService for Sessions {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, McpAnswer> {
        Box::pin(async { self.0.serve(request).await.response.into() })
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stop())
    }
}

impl Spawner for CountingSpawner {
    fn spawn(&self, _order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        self.spawns.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(SpawnError::Failed("there is no backend".into())) })
    }
}
