//! The twelve points that a broker of sessions has to keep, each in one test, over real HTTP with real children.
//!
//! The same points on paused time, with backends that do as they are told, are in the tests of the crate `session`. What `/mcp`
//! answers apart from sessions is in `answers`, what else lives and dies in `lifecycle`, and all of it at once in `chaos`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use broker::{
    Broker, BuildInfo, PublicUrl,
    ports::{Authority, BoxFuture, McpService, ResponseBody},
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, request::Parts};
use serde_json::{Value, json};
use session::{
    Registry,
    ports::{Backend, SpawnError, SpawnOrder, Spawner},
};
use testkit::{
    Browser, Client,
    forgejo::{Fault, Times},
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    answers::{initialize, initialize_until, is_error, tools_list},
    harness::{Harness, login_of, open, password},
    lifecycle::call_that_hangs,
    sessions::{LIMIT, TOKEN, only_child, short_lived, status_of, until_children},
};

/// Idle after a second.
const RESTLESS: [(&str, &str); 2] = [("session.idle_timeout", "1s"), ("session.reap_interval", "100ms")];

/// `initialize` without a session id spawns a backend and mints an id of 192 bits in lower-case hex; any other message without
/// an id is 400.
#[tokio::test]
async fn point_01_initialize_without_an_id_spawns_and_mints_one_and_nothing_else_does() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    is_error(&alice.post(tools_list("early")).await.unwrap(), 400, "early");
    is_error(&alice.post(notification.to_string()).await.unwrap(), 400, Value::Null);
    assert!(harness.broker.children().unwrap().is_empty());

    open(&alice).await;
    let id = alice.session_id().unwrap();
    assert!(
        id.len() == 48 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
        "{id}"
    );
    assert_eq!(harness.broker.children().unwrap().len(), 1);
    let second = alice.another_session();
    open(&second).await;
    assert_ne!(second.session_id().unwrap(), id);
    assert_eq!(harness.broker.children().unwrap().len(), 2);
}

/// An id is bound to its grant: the bearer of another one gets 403, and a refreshed bearer of the same one is the same caller.
#[tokio::test]
async fn point_02_an_id_is_bound_to_its_grant() {
    let harness = Harness::new(&[]).await;
    let alice = harness.in_session("alice").await;
    let bob = harness.signed_in("bob").await;
    // Her second client is another grant, though the same user.
    let hers = harness.client().with_redirect_uri("http://127.0.0.1/another-client");
    hers.sign_in(&mut Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    for intruder in [&bob, &hers] {
        intruder.set_session_id(alice.session_id().as_deref());
        is_error(&intruder.post(tools_list("x")).await.unwrap(), 403, "x");
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

/// An id that was never issued is 410 and one that has ended 404, with the id of the request; one setting makes both 404.
#[tokio::test]
async fn point_03_unknown_is_410_ended_is_404_and_one_setting_makes_both_404() {
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
            is_error(&alice.post(tools_list("seven")).await.unwrap(), status, "seven");
        }
    }
}

/// A cap for each user (429) and one for all (503), both with `Retry-After` and checked before anything is spawned; who is at
/// the first is told which sessions hold it.
#[tokio::test]
async fn point_04_caps_are_checked_before_anything_is_spawned() {
    let harness = Harness::new(&[("session.max_sessions", "3"), ("session.max_sessions_per_user", "2")]).await;
    let alice = harness.in_session("alice").await;
    let second = alice.another_session();
    open(&second).await;
    let third = alice.another_session();
    let answer = third.post(initialize(3)).await.unwrap();
    let error = is_error(&answer, 429, 3);
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(error["data"]["sessions"].as_array().unwrap().len(), 2, "{error}");
    assert!(
        !error.to_string().contains(&alice.session_id().unwrap()),
        "an id is a secret"
    );

    // Nobody else is held up by a user at the cap, but everyone by a full broker.
    let bob = harness.in_session("bob").await;
    let answer = bob.another_session().post(initialize("b")).await.unwrap();
    is_error(&answer, 503, "b");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(harness.broker.children().unwrap().len(), 3);

    second.delete().await.unwrap();
    // The room is there once the child is gone, not before: so the caps bound the processes.
    initialize_until(&third, StatusCode::OK).await;
}

/// Without a caller in the request it is 500, and never a spawn. The broker's own guard lets no such request through, which is
/// 401; so the 500 is shown with a guard that forgets.
#[tokio::test]
async fn point_05_without_a_caller_it_is_500_and_never_a_spawn() {
    let harness = Harness::new(&[]).await;
    let client = harness.client();
    for token in [None, Some("fmb_at_nonsense")] {
        client.set_access_token(token);
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let answer = client.raw(method, client.headers(), initialize(1)).await.unwrap();
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

    let spawner = Arc::new(Recorder::default());
    let registry = Registry::new(session::Config::default(), Arc::clone(&spawner) as _);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let build = BuildInfo {
        version: String::new(),
        revision: String::new(),
    };
    let config = broker::Config::new(PublicUrl::parse(&url).unwrap(), build);
    let careless = Broker::new(config, Arc::new(Forgetful), Arc::new(Sessions(registry)), vec![]);
    let shutdown = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(careless.serve(listener, shutdown.clone()));

    let client = Client::new(format!("{url}/mcp").parse().unwrap());
    is_error(&client.post(initialize("who")).await.unwrap(), 500, "who");
    client.set_session_id(Some(&"0".repeat(48)));
    is_error(&client.post(tools_list("who")).await.unwrap(), 500, "who");
    assert_eq!(spawner.orders.load(Ordering::SeqCst), 0);
    shutdown.cancel();
    let served = timeout(LIMIT, serving.join_next()).await.expect("it stops");
    served.unwrap().unwrap().unwrap();
}

/// A backend that dies is cleaned up at once, and what is in flight on it gets a clear error with its id.
#[tokio::test]
async fn point_06_a_child_that_dies_is_cleaned_up_at_once() {
    let harness = Harness::new(&[("session.retain", "0s")]).await;
    let alice = harness.in_session("alice").await;
    let hers = only_child(&harness);
    let bob = harness.in_session("bob").await;
    let mut calls = call_that_hangs(&harness, alice).await;
    hers.kill().unwrap();
    let (answer, id, alice) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(answer.status, 200);
    let response = answer
        .response_to(&id)
        .expect("the error carries the id of the request");
    assert!(response["error"]["message"].is_string(), "{response}");

    // With nothing retained the session has ended with its child; nobody else notices.
    harness.broker.log().contains("session ended").await;
    assert_eq!(status_of(&alice).await, 404);
    assert_eq!(login_of(&bob).await, "bob");
    open(&alice.another_session()).await;
}

/// A backend on which nothing has happened for `idle_timeout` is stopped; a request in flight pins its session, an open GET
/// stream alone does not.
#[tokio::test]
async fn point_07_idle_children_are_stopped_and_what_is_in_flight_pins() {
    let harness = Harness::new(&RESTLESS).await;
    // His request begins before hers have ended: if it did not pin, his child would be due first.
    let bob = harness.in_session("bob").await;
    let mut calls = call_that_hangs(&harness, bob).await;
    let his = until_children(&harness, 1).await[0];
    let alice = harness.in_session("alice").await;
    let _listening = alice.listen(None).await.unwrap();
    assert_eq!(until_children(&harness, 1).await, [his]);

    his.kill().unwrap();
    let (answer, id, bob) = calls.join_next().await.unwrap().unwrap();
    assert!(answer.response_to(&id).unwrap()["error"].is_object());
    assert_eq!(login_of(&bob).await, "bob");
    // Nothing in flight any more.
    until_children(&harness, 0).await;
}

/// Before its token runs out a session moves: the fresh backend is there before the old one goes, what is in flight finishes,
/// and the id stays. A client that initializes again on its id is served too.
#[tokio::test]
async fn point_08_a_session_moves_before_its_token_runs_out_and_keeps_its_id() {
    let harness = short_lived().await;
    let alice = harness.in_session("alice").await;
    let (session, first) = (alice.session_id(), only_child(&harness));
    // A call that began on the old child ends there, whatever is moved meanwhile.
    let params = json!({ "name": "test_sleep", "arguments": { "ms": TOKEN.as_millis() as u64 } });
    let (slow, ()) = tokio::join!(
        alice.request("tools/call", params),
        harness.broker.log().contains("session moved to a new backend")
    );
    let (slow, id) = slow.unwrap();
    assert!(slow.response_to(&id).unwrap()["result"].is_object());
    first.exited().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);

    let again = alice.post(initialize("again")).await.unwrap();
    assert_eq!((again.status.as_u16(), again.header("mcp-session-id")), (200, None));
    assert!(again.response_to(&json!("again")).unwrap()["result"].is_object());
    assert_eq!(login_of(&alice).await, "alice");
}

/// A refusal for good ends the user's sessions and grants, so that the next request is 401; one for now keeps serving while the
/// token lives, and ends nothing.
#[tokio::test]
async fn point_09_a_refusal_for_good_ends_the_sessions_and_one_for_now_does_not() {
    let harness = short_lived().await;
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
        .inject("/login/oauth/access_token", broken, Times::UntilCleared);
    harness
        .broker
        .log()
        .contains("session is dormant: its credential expired")
        .await;
    let refused = timeout(LIMIT, async { while status_of(&bob).await == 200 {} });
    refused.await.expect("his token runs out");
    assert_eq!(status_of(&bob).await, 503);
    harness.forgejo.clear_faults();
    assert_eq!(login_of(&bob).await, "bob");
}

/// A stop ends every session within its deadline, whatever is in flight, and leaves no child behind.
#[tokio::test]
async fn point_10_stop_leaves_no_child() {
    for busy in [false, true] {
        let mut harness = Harness::new(&[("server.drain_timeout", "1s"), ("child.stop_grace", "1s")]).await;
        let alice = harness.in_session("alice").await;
        let _bob = harness.in_session("bob").await;
        let calls = match busy {
            true => call_that_hangs(&harness, alice).await,
            false => JoinSet::new(),
        };
        let children = harness.broker.children().unwrap();
        assert_eq!(children.len(), 2);
        assert!(harness.broker.terminate().await.unwrap().success());
        assert!(children.iter().all(|child| !child.is_alive()));
        drop(calls);
    }
}

/// A durable session outlives its backend: idle, crashed, or gone with a restart, the next request is answered by a fresh one
/// that has the handshake. A crash loop is bounded and reported as what it is.
#[tokio::test]
async fn point_11_a_durable_session_outlives_idleness_crash_and_restart() {
    let mut harness = Harness::new(&RESTLESS).await;
    let alice = harness.in_session("alice").await;
    let session = alice.session_id();
    until_children(&harness, 0).await;
    assert_eq!(login_of(&alice).await, "alice");

    let mut calls = call_that_hangs(&harness, alice).await;
    until_children(&harness, 1).await[0].kill().unwrap();
    let (answer, id, alice) = calls.join_next().await.unwrap().unwrap();
    assert!(answer.response_to(&id).unwrap()["error"].is_object());
    assert_eq!(login_of(&alice).await, "alice");

    harness.broker.terminate().await.unwrap();
    harness.broker.start_again().await.unwrap();
    assert!(
        harness.broker.children().unwrap().is_empty(),
        "nothing is started before it is asked for"
    );
    assert_eq!(login_of(&alice).await, "alice");

    let exit = json!({ "name": "test_exit", "arguments": { "code": 3 } });
    let put_off = timeout(LIMIT, async {
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
    let wait = put_off.await.expect("a crash loop is put off");
    sleep(Duration::from_secs(wait)).await;
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(alice.session_id(), session);
}

/// Modern clients, which have no sessions, are not served yet, and are told so at once: `server/discover` is -32601 with the id of
/// the request, and `initialize` is never answered above 2025-11-25. Both make a client that can do either fall back.
#[tokio::test]
async fn point_12_a_modern_client_is_told_that_its_era_is_not_served() {
    let harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    let modern = |method: &str| {
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "modern", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        json!({ "jsonrpc": "2.0", "id": "m", "method": method, "params": { "_meta": meta } }).to_string()
    };
    let error = is_error(&alice.post(modern("server/discover")).await.unwrap(), 400, "m");
    assert_eq!(error["code"], -32601);
    is_error(&alice.post(modern("tools/list")).await.unwrap(), 400, "m");
    assert!(harness.broker.children().unwrap().is_empty());

    let params = json!({
        "protocolVersion": "2026-07-28",
        "capabilities": {},
        "clientInfo": { "name": "modern", "version": "1" },
    });
    let (answer, id) = alice.request("initialize", params).await.unwrap();
    let result = &answer.response_to(&id).unwrap()["result"];
    assert_eq!(result["protocolVersion"], "2025-11-25", "{}", answer.text());
    assert!(answer.header("mcp-session-id").is_some());
}

/// Lets everyone in and says of nobody who it is.
#[derive(Debug)]
struct Forgetful;

/// A registry, and nothing else.
#[derive(Debug)]
struct Sessions(Registry);

/// Counts what it is asked for.
#[derive(Debug, Default)]
struct Recorder {
    orders: AtomicUsize,
}

impl Authority for Forgetful {
    fn authenticate<'a>(&'a self, _parts: &'a mut Parts) -> BoxFuture<'a, Result<(), Response<ResponseBody>>> {
        Box::pin(async { Ok(()) })
    }

    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        panic!("{} is asked of nobody", request.uri())
    }
}

impl McpService for Sessions {
    fn serve(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<ResponseBody>> {
        Box::pin(self.0.serve(request))
    }

    fn drain(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.stop())
    }
}

impl Spawner for Recorder {
    fn spawn(&self, _order: SpawnOrder) -> BoxFuture<'_, Result<Arc<dyn Backend>, SpawnError>> {
        self.orders.fetch_add(1, Ordering::SeqCst);
        Box::pin(async { Err(SpawnError::Failed("there is none".into())) })
    }
}
