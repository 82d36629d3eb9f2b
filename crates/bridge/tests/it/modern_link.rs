//! A link to a server that speaks only MCP 2026-07-28: timers, faulty lines, and its end.

use std::sync::Arc;

use bridge::{Config, ConnectError, DropReason, ServerEra};
use serde_json::{Value, json};
use tokio::time::Duration;

use crate::harness::{Bridge, Kind, Server, post, start_post};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"c","version":"1"}}}"#;
const CALL: &str = r#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"name":"t"}}"#;

/// A conversation whose handshake a modern server has answered.
async fn open(config: Config) -> (Arc<Bridge>, Server) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut server = Server::new(far, &config);
    let bridge = Bridge::connect_as(ServerEra::Modern, near, config, None).await;
    let bridge = Arc::new(bridge.expect("nothing to replay"));
    let opening = start_post(&bridge, INITIALIZE);
    discover(&mut server, r#"{"tools":{}}"#).await;
    assert_eq!(opening.await.expect("no panic").kind, Kind::Opened);
    (bridge, server)
}

async fn discover(server: &mut Server, capabilities: &str) {
    let (id, line) = server.request().await;
    assert!(line.contains(r#""method":"server/discover""#), "{line}");
    let result = format!(r#"{{"supportedVersions":["2026-07-28"],"capabilities":{capabilities}}}"#);
    server.result(id, &result).await;
}

fn error(text: &str) -> Value {
    serde_json::from_str::<Value>(text).expect("JSON")["error"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_call_is_repeated_in_time() {
    let (bridge, mut server) = open(Config::default()).await;
    let call = start_post(&bridge, CALL);
    let (first, _) = server.request().await;
    server
        .result(first, r#"{"resultType":"input_required","requestState":"s"}"#)
        .await;
    assert!(server.receives_nothing(Duration::from_millis(240)).await);
    let (second, line) = server.request().await;
    assert!(line.contains(r#""requestState":"s""#), "{line}");
    server.result(second, r#"{"resultType":"complete","content":[]}"#).await;
    let response = call.await.expect("no panic").json().await;
    assert_eq!(response, r#"{"jsonrpc":"2.0","id":"c","result":{"content":[]}}"#);
    assert!(!bridge.link.has_refused_era());
}

#[tokio::test(start_paused = true)]
async fn lines_that_cannot_be_read_fail_their_call_in_any_round() {
    let config = Config {
        max_line: 1000,
        ..Config::default()
    };
    let (bridge, mut server) = open(config).await;
    let long = "x".repeat(1000);
    for (broken, reason) in [
        (r#"{"jsonrpc":"2.0","id":ID,"result":NaN}"#, DropReason::InvalidJson),
        (r#"{"jsonrpc":"2.0","id":ID}"#, DropReason::InvalidMessage),
        (r#"{"jsonrpc":"2.0","id":ID,"result":"LONG"}"#, DropReason::LineTooLong),
    ] {
        let call = start_post(&bridge, CALL);
        let (first, _) = server.request().await;
        server
            .result(first, r#"{"resultType":"input_required","requestState":"s"}"#)
            .await;
        let (second, _) = server.request().await;
        let broken = broken.replace("ID", &second.to_string()).replace("LONG", &long);
        server.write(&broken).await;
        let response = call.await.expect("no panic").json().await;
        assert_eq!(error(&response)["code"], -32000, "{response}");
        assert_eq!(server.dropped(reason), 1);
    }
    server.raw(b"\n[]\n").await;
    let call = start_post(&bridge, CALL);
    let (id, _) = server.request().await;
    server.result(id, "{}").await;
    assert_eq!(
        call.await.expect("no panic").json().await,
        r#"{"jsonrpc":"2.0","id":"c","result":{}}"#
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_ends_its_questions_and_its_calls() {
    let (bridge, mut server) = open(Config::default()).await;
    let asking = start_post(&bridge, CALL);
    let (id, _) = server.request().await;
    let input = json!({ "method": "elicitation/create", "params": { "message": "m", "requestedSchema": {} } });
    let result = json!({ "resultType": "input_required", "inputRequests": { "k": input }, "requestState": "s" });
    server.result(id, &result.to_string()).await;
    let mut asking = asking.await.expect("no panic");
    assert!(asking.message().await.contains("elicitation/create"));
    server.close();
    assert!(asking.message().await.contains("notifications/cancelled"));
    let response = asking.message().await;
    assert_eq!(error(&response)["code"], -32000, "{response}");
    bridge.link.done().cancelled().await;
}

#[tokio::test(start_paused = true)]
async fn the_next_server_is_asked_what_it_is_and_gets_no_less() {
    let (bridge, _server) = open(Config::default()).await;
    let replays = [
        (r#"{"tools":{},"logging":{}}"#, None),
        ("{}", Some("CapabilityMissing")),
    ];
    for (number, (capabilities, expected)) in (2..).zip(replays) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let mut server = Server::new(far, &Config::default());
        let (link, ()) = tokio::join!(
            bridge.connect(number, near, ServerEra::Modern),
            discover(&mut server, capabilities)
        );
        match (link, expected) {
            (Ok(_), None) => {}
            (Err(error), Some(name)) => assert!(format!("{error:?}").starts_with(name), "{error:?}"),
            (other, _) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_legacy_server_refuses_the_era() {
    let (bridge, _server) = open(Config::default()).await;
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut server = Server::new(far, &Config::default());
    let refuse = async {
        let (id, _) = server.request().await;
        server.error(id, -32601).await;
    };
    let (link, ()) = tokio::join!(bridge.connect(2, near, ServerEra::Modern), refuse);
    assert!(matches!(link, Err(ConnectError::Refused { code: -32601 })), "{link:?}");

    let (near, far) = tokio::io::duplex(1 << 20);
    let mut server = Server::new(far, &Config::default());
    let bridge = Bridge::connect_as(ServerEra::Modern, near, Config::default(), None).await;
    let bridge = Arc::new(bridge.expect("nothing to replay"));
    let opening = start_post(&bridge, INITIALIZE);
    let (id, _) = server.request().await;
    server.error(id, -32601).await;
    let refused = opening.await.expect("no panic").error().await;
    assert_eq!(refused["error"]["code"], -32601);
    assert!(bridge.link.has_refused_era());
}

#[tokio::test(start_paused = true)]
async fn a_ping_needs_no_server() {
    let (bridge, mut server) = open(Config::default()).await;
    let ping = post(&bridge, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await;
    assert_eq!(ping.json().await, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert!(server.receives_nothing(Duration::from_secs(1)).await);
}
