//! Floods of connections: users and health checks are still served.

use http::StatusCode;

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
