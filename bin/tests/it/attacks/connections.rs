//! Floods of connections and of requests that do not end: users and health checks are still served.

use http::StatusCode;
use serde_json::json;

use tokio::task::JoinSet;

use super::Attacker;
use crate::harness::{Harness, login_of, raw_http::RawConnection};

/// Connections that send nothing, four times as many as the broker accepts.
#[tokio::test]
async fn flood_of_silent_connections_keeps_nobody_out() {
    let harness = Harness::new(&[("server.max_connections", "64")]).await;
    let alice = harness.in_session("alice").await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        for _ in 0..64 {
            silent.push(RawConnection::open(&harness).await);
        }
        let attacker = Attacker::new(&harness);
        for path in ["/healthz", "/readyz"] {
            assert_eq!(attacker.get(path, &[]).await.status, StatusCode::OK, "{path}");
        }
        assert_eq!(login_of(&alice).await, "alice");
    }
    assert_eq!(silent[0].next_line().await, "", "the oldest connection is closed");
}

/// One user starts more slow calls than it may; another user and health checks are served.
#[tokio::test]
async fn slow_calls_of_one_user_delay_no_other() {
    let limits = [("server.max_exchanges", "16"), ("server.max_exchanges_per_grant", "4")];
    let harness = Harness::new(&limits).await;
    let (alice, bob) = (harness.in_session("alice").await, harness.in_session("bob").await);
    let token = alice.access_token().unwrap();
    let session = format!("mcp-session-id: {}\r\n", alice.session_id().unwrap());
    let mut slow = JoinSet::new();
    // Each begins a body that it does not finish.
    for _ in 0..8 {
        let mut call = RawConnection::open(&harness).await;
        call.send_head(&token, &session, 100).await;
        slow.spawn(async move { call.next_line().await });
    }
    for _ in 0..4 {
        let refused = slow.join_next().await.unwrap().unwrap();
        assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    }
    let (answer, _) = alice.request("ping", json!({})).await.unwrap();
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let attacker = Attacker::new(&harness);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(attacker.get(path, &[]).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(login_of(&bob).await, "bob");
    drop(slow);
}

/// Strangers send bodies that do not end, more than the broker keeps; a user is still served.
#[tokio::test]
async fn unfinished_bodies_of_strangers_take_nothing_from_users() {
    let harness = Harness::new(&[("server.max_body_memory", "256KiB")]).await;
    let alice = harness.in_session("alice").await;
    let address = harness.broker.url().strip_prefix("http://").unwrap().to_owned();
    let mut waiting = JoinSet::new();
    for path in ["/oauth/token", "/oauth/register"] {
        for _ in 0..8 {
            let mut stranger = RawConnection::open(&harness).await;
            let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 65536\r\n\r\n");
            stranger.send(&format!("{head}{}", "x".repeat(30_000))).await;
            waiting.spawn(async move { stranger.next_line().await });
        }
    }
    // Two of these bodies fit.
    for _ in 0..14 {
        let refused = waiting.join_next().await.unwrap().unwrap();
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    }
    assert_eq!(login_of(&alice).await, "alice");
}
