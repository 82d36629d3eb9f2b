//! The handshake: version limits, the record, and its replay to a fresh server.

use std::{sync::Arc, time::Duration};

use bridge::{Config, ConnectError, DropReason, Snapshot};
use serde_json::Value;

use crate::harness::{Bridge, Server, bridge, initialize, post, start_post, until};

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Completes a handshake between a client and a server that agree on `version`.
async fn handshake(bridge: &Arc<Bridge>, server: &mut Server, version: &str) {
    let reply = start_post(bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    server
        .result(
            id,
            &format!(r#"{{"protocolVersion":"{version}","serverInfo":{{"name":"first"}}}}"#),
        )
        .await;
    assert_eq!(reply.await.expect("no panic").status, 200);
    assert_eq!(post(bridge, INITIALIZED).await.status, 202);
    assert_eq!(server.line().await, INITIALIZED);
}

async fn snapshot(version: &str) -> Snapshot {
    let (bridge, mut server) = bridge().await;
    handshake(&bridge, &mut server, version).await;
    let bytes = bridge.snapshot().expect("a handshake").to_bytes();
    Snapshot::from_bytes(&bytes).expect("a snapshot")
}

/// Connects with a snapshot to the fresh server that `server` scripts.
async fn resume<F: Future<Output = ()>>(
    snapshot: &Snapshot,
    server: impl FnOnce(Server) -> F,
) -> Result<Bridge, ConnectError> {
    let (near, far) = tokio::io::duplex(1 << 16);
    let config = Config::default();
    let server = server(Server::new(far, &config));
    tokio::join!(Bridge::connect(near, config, Some(snapshot)), server).0
}

#[tokio::test(start_paused = true)]
async fn a_version_above_the_latest_never_reaches_the_server() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2026-07-28"));
    let (id, line) = server.request().await;
    let message: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(message["params"]["protocolVersion"], "2025-11-25");
    assert_eq!(message["params"]["clientInfo"]["name"], "c");
    server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    assert_eq!(
        reply.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_above_the_latest_never_reaches_the_client() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    server.result(id, r#"{"protocolVersion":"2026-07-28"}"#).await;
    let error = reply.await.expect("no panic").error().await;
    assert_eq!(
        (&error["id"], &error["error"]["data"]["requested"]),
        (&0.into(), &"2026-07-28".into())
    );
    assert!(bridge.snapshot().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_initialize_that_is_too_large_is_rejected_with_its_id() {
    let (bridge, mut server) = bridge().await;
    let padded = |size: usize| {
        let head = r#"{"protocolVersion":"2025-11-25","x":""#;
        let params = format!("{head}{}\"}}", "x".repeat(size - head.len() - 2));
        format!(r#"{{"jsonrpc":"2.0","id":"large","method":"initialize","params":{params}}}"#)
    };
    let reply = post(&bridge, padded(64 * 1024 + 1)).await;
    assert_eq!(reply.status, 400);
    let error = reply.error().await;
    assert_eq!(
        (&error["id"], &error["error"]["code"]),
        (&"large".into(), &(-32600).into())
    );
    assert!(server.receives_nothing(Duration::from_secs(1)).await);
    // The rejected one leaves no trace, and one at the limit is accepted.
    let reply = start_post(&bridge, padded(64 * 1024));
    let (id, _) = server.request().await;
    server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    assert_eq!(reply.await.expect("no panic").status, 200);
}

#[tokio::test(start_paused = true)]
async fn initialize_on_a_live_session_is_answered_from_the_record() {
    let (bridge, mut server) = bridge().await;
    handshake(&bridge, &mut server, "2025-06-18").await;
    let again = initialize("2025-11-25").replace("\"id\":0", "\"id\":\"again\"");
    assert_eq!(
        post(&bridge, again).await.json().await,
        r#"{"jsonrpc":"2.0","id":"again","result":{"protocolVersion":"2025-06-18","serverInfo":{"name":"first"}}}"#
    );
    assert_eq!(post(&bridge, INITIALIZED).await.status, 202);
    assert!(server.receives_nothing(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn a_second_initialize_during_the_first_is_a_conflict() {
    let (bridge, mut server) = bridge().await;
    let _first = start_post(&bridge, initialize("2025-11-25"));
    server.request().await;
    let second = post(&bridge, initialize("2025-11-25").replace("\"id\":0", "\"id\":1")).await;
    assert_eq!(
        (second.status.as_u16(), second.error().await["id"].clone()),
        (409, 1.into())
    );
}

#[tokio::test(start_paused = true)]
async fn an_initialize_that_the_server_rejects_may_be_retried() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    server.error(id, -32602).await;
    assert_eq!(reply.await.expect("no panic").error().await["error"]["code"], -32602);
    assert!(bridge.snapshot().is_none());
    handshake(&bridge, &mut server, "2025-11-25").await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_server_replaces_the_old_one_after_the_replay() {
    let snapshot = snapshot("2025-06-18").await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let config = Config::default();
    let mut server = Server::new(far, &config);
    let (bridge, ()) = tokio::join!(Bridge::connect(near, config, Some(&snapshot)), async {
        let (id, line) = server.request().await;
        let message: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(message["params"]["protocolVersion"], "2025-06-18");
        assert_eq!(message["params"]["clientInfo"]["name"], "c");
        // A message during the replay is for the client.
        server
            .write(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#)
            .await;
        server
            .result(id, r#"{"protocolVersion":"2025-06-18","serverInfo":{"name":"two"}}"#)
            .await;
    });
    let bridge = Arc::new(bridge.expect("a good replay"));
    assert_eq!(server.line().await, INITIALIZED);
    // The new snapshot differs only in the result of the server.
    let text = |snapshot: &Snapshot| String::from_utf8(snapshot.to_bytes().into()).expect("text");
    let renewed = text(&bridge.snapshot().expect("a handshake"));
    assert_eq!(renewed, text(&snapshot).replace("\"first\"", "\"two\""));
    // What the server has said meanwhile goes to the first stream that may carry it.
    let reply = start_post(&bridge, r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    let messages = reply.await.expect("no panic").messages().await;
    assert!(messages[0].contains("notifications/message"));
    assert_eq!(messages[1], r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    // A client that initializes again gets the result of the new server.
    assert!(
        post(&bridge, initialize("2025-11-25"))
            .await
            .json()
            .await
            .contains("\"two\"")
    );
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_handshake_is_confirmed_by_the_client_after_the_replay() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    reply.await.expect("no panic");
    let snapshot = bridge.snapshot().expect("a handshake");

    let (near, far) = tokio::io::duplex(1 << 16);
    let config = Config::default();
    let mut server = Server::new(far, &config);
    let (bridge, ()) = tokio::join!(Bridge::connect(near, config, Some(&snapshot)), async {
        let (id, _) = server.request().await;
        server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    });
    let bridge = bridge.expect("a good replay");
    assert!(server.receives_nothing(Duration::from_secs(5)).await);
    assert_eq!(post(&bridge, INITIALIZED).await.status, 202);
    assert_eq!(server.line().await, INITIALIZED);
}

#[tokio::test(start_paused = true)]
async fn a_failed_replay_returns_its_error_and_drops_the_io() {
    let snapshot = snapshot("2025-06-18").await;

    let ended = resume(&snapshot, |mut server| async move {
        server.request().await;
    });
    assert!(matches!(ended.await, Err(ConnectError::Ended)));

    let silent = resume(&snapshot, |mut server| async move {
        server.request().await;
        server.wait_for_end().await;
    });
    assert!(matches!(silent.await, Err(ConnectError::TimedOut)));

    let refused = resume(&snapshot, |mut server| async move {
        let (id, _) = server.request().await;
        server.error(id, -32099).await;
        server.wait_for_end().await;
    });
    assert!(matches!(refused.await, Err(ConnectError::Refused { code: -32099 })));

    let useless = resume(&snapshot, |mut server| async move {
        let (id, _) = server.request().await;
        server.result(id, "[]").await;
        server.wait_for_end().await;
    });
    assert!(matches!(useless.await, Err(ConnectError::Unusable)));

    let changed = resume(&snapshot, |mut server| async move {
        let (id, _) = server.request().await;
        server.result(id, r#"{"protocolVersion":"2025-03-26"}"#).await;
        server.wait_for_end().await;
    });
    let Err(ConnectError::VersionChanged { held, negotiated }) = changed.await else {
        panic!("another version")
    };
    assert_eq!((held.as_str(), negotiated.as_str()), ("2025-06-18", "2025-03-26"));
}

#[tokio::test(start_paused = true)]
async fn debug_output_shows_no_content() {
    let (bridge, mut server) = bridge().await;
    handshake(&bridge, &mut server, "2025-11-25").await;
    let shown = format!("{:?} {:?} {:?}", **bridge, bridge.link, bridge.snapshot());
    assert!(!shown.contains("clientInfo") && !shown.contains("first"), "{shown}");
}

#[tokio::test(start_paused = true)]
async fn an_early_confirmation_does_not_count() {
    let (bridge, mut server) = bridge().await;
    assert_eq!(post(&bridge, INITIALIZED).await.status, 202);
    assert_eq!(server.line().await, INITIALIZED);
    handshake(&bridge, &mut server, "2025-11-25").await;
}

/// Makes a request that the server accepts.
async fn accepted_request(bridge: &Arc<Bridge>, server: &mut Server, method: &str, params: &str) {
    let body = format!(r#"{{"jsonrpc":"2.0","id":"w","method":"{method}","params":{params}}}"#);
    let reply = start_post(bridge, body);
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    assert_eq!(reply.await.expect("no panic").status, 200);
}

#[tokio::test(start_paused = true)]
async fn log_level_and_subscriptions_are_replayed_to_a_fresh_server() {
    let (bridge, mut server) = bridge().await;
    handshake(&bridge, &mut server, "2025-11-25").await;
    for (method, params) in [
        ("logging/setLevel", r#"{"level":"info"}"#),
        ("logging/setLevel", r#"{"level":"debug"}"#),
        ("resources/subscribe", r#"{"uri":"f:1"}"#),
        ("resources/subscribe", r#"{"uri":"f:2"}"#),
        ("resources/subscribe", r#"{"uri":"f:3"}"#),
        ("resources/unsubscribe", r#"{"uri":"f:1"}"#),
    ] {
        accepted_request(&bridge, &mut server, method, params).await;
    }
    // A rejected setting is not replayed.
    let reply = start_post(
        &bridge,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/subscribe","params":{"uri":"f:4"}}"#,
    );
    let (id, _) = server.request().await;
    server.error(id, -32002).await;
    reply.await.expect("no panic");

    let snapshot = bridge.snapshot().expect("a handshake");
    let snapshot = Snapshot::from_bytes(&snapshot.to_bytes()).expect("a snapshot");
    let (near, far) = tokio::io::duplex(1 << 16);
    let config = Config::default();
    let mut server = Server::new(far, &config);
    let (bridge, ()) = tokio::join!(Bridge::connect(near, config, Some(&snapshot)), async {
        let (id, _) = server.request().await;
        server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    });
    // The start waits for no setting.
    let _bridge = bridge.expect("a good replay");
    assert_eq!(server.line().await, INITIALIZED);
    let mut requests = Vec::new();
    for _ in 0..3 {
        let (id, line) = server.request().await;
        let message: Value = serde_json::from_str(&line).expect("JSON");
        requests.push((id, format!("{} {}", message["method"], message["params"])));
    }
    let texts: Vec<_> = requests.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(
        texts,
        [
            r#""logging/setLevel" {"level":"debug"}"#,
            r#""resources/subscribe" {"uri":"f:2"}"#,
            r#""resources/subscribe" {"uri":"f:3"}"#,
        ]
    );
    // The server rejects one setting; the session continues without it.
    server.result(requests[2].0, "{}").await;
    server.error(requests[1].0, -32002).await;
    server.result(requests[0].0, "{}").await;
    until(|| server.dropped(DropReason::SettingLost) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_server_without_a_promised_capability_is_rejected() {
    let result = |capabilities| format!(r#"{{"protocolVersion":"2025-11-25","capabilities":{capabilities}}}"#);
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    let capabilities = r#"{"tools":{},"resources":{"subscribe":true}}"#;
    server.result(id, &result(capabilities)).await;
    reply.await.expect("no panic");
    let snapshot = bridge.snapshot().expect("a handshake");
    let lacking = resume(&snapshot, |mut server| async move {
        let (id, _) = server.request().await;
        let capabilities = r#"{"tools":{"listChanged":true},"resources":{}}"#;
        server.result(id, &result(capabilities)).await;
        server.wait_for_end().await;
    });
    let Err(ConnectError::CapabilityMissing { capability }) = lacking.await else {
        panic!("a capability is missing")
    };
    assert_eq!(capability, "resources.subscribe");
}

#[tokio::test(start_paused = true)]
async fn a_message_before_the_response_to_initialize_starts_no_stream() {
    let (bridge, mut server) = bridge().await;
    let reply = start_post(&bridge, initialize("2025-11-25"));
    let (id, _) = server.request().await;
    let message = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#;
    server.write(message).await;
    assert!(server.receives_nothing(Duration::from_secs(5)).await);
    server.result(id, r#"{"protocolVersion":"2025-11-25"}"#).await;
    assert!(reply.await.expect("no panic").json().await.contains("2025-11-25"));
    assert_eq!(crate::harness::get(&bridge).await.message().await, message);
}
