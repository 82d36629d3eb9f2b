//! Sessions that go on beyond the twelve points of `twelve`: a new sign-in, a broker that was killed.

use std::time::Duration;

use serde_json::json;
use testkit::{Client, broker::Process};
use tokio::time::{sleep, timeout};

use crate::harness::{Harness, login_of, open, password};

/// How long a Forgejo token is said to live here. Half of it, and sessions move.
pub(crate) const TOKEN: Duration = Duration::from_secs(4);
const ROTATING: &[(&str, &str)] = &[
    ("session.rotate_interval", "100ms"),
    ("log.filter", "info,session=debug"),
];
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn short_lived() -> Harness {
    let harness = Harness::new(ROTATING).await;
    // It is good for longer, so that a machine that has no time for a sign-in or a renewal is no fault of the broker.
    harness.forgejo.set_lifetimes(TOKEN * 8, Duration::from_secs(3600));
    harness.forgejo.set_advertised_lifetime(TOKEN);
    harness
}

pub(crate) fn only_child(harness: &Harness) -> Process {
    let children = harness.broker.children().unwrap();
    assert_eq!(children.len(), 1);
    children[0]
}

/// The children, once there are so many: those of before may be on their way out.
pub(crate) async fn until_children(harness: &Harness, count: usize) -> Vec<Process> {
    let wait = timeout(LIMIT, async {
        loop {
            let children = harness.broker.children().unwrap();
            if children.len() == count {
                return children;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    wait.await
        .unwrap_or_else(|_| panic!("there are never {count} children"))
}

pub(crate) async fn status_of(client: &Client) -> u16 {
    let (answer, id) = client.request("tools/list", json!({})).await.unwrap();
    if answer.status != 401 {
        assert_eq!(answer.json()["id"], id);
    }
    answer.status.as_u16()
}

#[tokio::test]
async fn a_new_sign_in_moves_live_sessions_at_once() {
    let harness = Harness::new(ROTATING).await;
    let alice = harness.in_session("alice").await;
    let first = only_child(&harness);
    let other = harness.client();
    other
        .sign_in(&mut testkit::Browser::new(), "alice", &password("alice"))
        .await
        .unwrap();
    harness.broker.log().contains("session moved to a new backend").await;
    first.exited().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn a_session_outlives_a_broker_that_was_killed() {
    let mut harness = Harness::new(&[("session.idle_timeout", "1s"), ("session.reap_interval", "100ms")]).await;
    let alice = harness.in_session("alice").await;
    let bob = alice.another_session();
    open(&bob).await;
    // Asleep: so the records have been written since.
    for child in harness.broker.children().unwrap() {
        child.exited().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    harness.broker.kill().await.unwrap();
    harness.broker.start_again().await.unwrap();
    assert!(
        harness.broker.children().unwrap().is_empty(),
        "nothing is started before it is asked for"
    );
    for session in [&alice, &bob] {
        assert_eq!(login_of(session).await, "alice");
    }
    let stored = std::fs::read(harness.broker.directory().join("broker.db")).unwrap();
    let clear = |text: &[u8]| stored.windows(text.len()).any(|window| window == text);
    assert!(
        !clear(alice.session_id().unwrap().as_bytes()) && !clear(b"clientInfo"),
        "a secret is in the database"
    );
}
