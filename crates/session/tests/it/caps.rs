//! The caps: exact under races, and told so that the user can act on them.

use std::{sync::Arc, time::Duration};

use session::{Config, Registry, Stats, ports::Spawner};
use tokio::task::JoinSet;

use crate::fakes::{Outcome, ScriptedSpawner, open, post, registry, rpc, said, session_id, settle, text};

fn small(max_sessions: usize, max_sessions_per_user: usize) -> Config {
    Config {
        max_sessions,
        max_sessions_per_user,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_at_the_user_cap_is_told_which_sessions_hold_it() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, small(10, 2));
    open(&reg, "ann/x").await;
    let first = spawner.last_tag();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let busy = open(&reg, "ann/y").await;
    let second = spawner.last_tag();
    let _stream = post(&reg, "ann/y", Some(&busy), &rpc("2", "stream")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;

    let response = post(&reg, "ann/x", None, &rpc("9", "initialize")).await;
    assert_eq!(response.status().as_u16(), 429);
    // The first one is reaped after 900 s of idleness, of which 120 s are over.
    assert_eq!(response.headers()["retry-after"], "780");
    let body: serde_json::Value = serde_json::from_str(&text(response).await).expect("JSON");
    assert_eq!(body["id"], 9);
    let expected = serde_json::json!({"limit": 2, "sessions": [
        {"tag": &*first, "ageSeconds": 120, "idleSeconds": 120},
        {"tag": &*second, "ageSeconds": 20},
    ]});
    assert_eq!(body["error"]["data"], expected);
    assert_eq!(spawner.orders(), 2, "nothing is spawned for the one that was refused");
    open(&reg, "bob/x").await;
}

#[tokio::test(start_paused = true)]
async fn at_the_total_cap_everyone_is_put_off() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, small(2, 2));
    open(&reg, "ann/x").await;
    open(&reg, "bob/x").await;
    let response = post(&reg, "eve/x", None, &rpc("1", "initialize")).await;
    assert_eq!(response.status().as_u16(), 503);
    assert_eq!(response.headers()["retry-after"], "30");
    assert!(text(response).await.contains(r#""id":1"#));
    assert_eq!(spawner.orders(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_being_stopped_still_counts() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = registry(&spawner, small(1, 1));
    let id = open(&reg, "ann/x").await;
    spawner.hold_stops.send_replace(true);
    let delete = crate::fakes::request(http::Method::DELETE, "ann/x", Some(&id), "");
    assert_eq!(reg.serve(delete).await.status().as_u16(), 204);
    settle().await;
    assert_eq!(
        reg.stats(),
        Stats {
            attached: 0,
            dormant: 0,
            opening: 0,
            stopping: 1
        }
    );
    assert_eq!(said(&reg, "ann/x", None, &rpc("1", "initialize")).await.0, 429);
    spawner.hold_stops.send_replace(false);
    settle().await;
    open(&reg, "ann/x").await;
    assert_eq!(spawner.running.most(), 1);
}

#[tokio::test(start_paused = true)]
async fn failed_starts_count_against_nothing() {
    let spawner = ScriptedSpawner::immediate(Outcome::Failed);
    let reg = registry(&spawner, small(1, 1));
    for _ in 0..5 {
        assert_eq!(said(&reg, "ann/x", None, &rpc("1", "initialize")).await.0, 502);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_initializes_at_once_never_pass_the_caps() {
    let spawner = ScriptedSpawner::immediate(Outcome::Good);
    let reg = Arc::new(Registry::new(small(40, 7), Arc::clone(&spawner) as Arc<dyn Spawner>));
    let mut clients = JoinSet::new();
    for i in 0..1000 {
        let reg = Arc::clone(&reg);
        clients.spawn(async move {
            let who = format!("user{}/x", i % 10);
            let response = post(&reg, &who, None, &rpc("1", "initialize")).await;
            (i % 10, response.status().as_u16(), session_id(&response).is_some())
        });
    }
    let mut opened = [0; 10];
    while let Some(client) = clients.join_next().await {
        let (user, status, has_id) = client.expect("no panic");
        assert!(matches!(status, 200 | 429 | 503), "{status}");
        assert_eq!(has_id, status == 200);
        opened[user] += usize::from(has_id);
    }
    // No session ended, so the caps are also reached, not only kept.
    assert_eq!(opened.iter().sum::<usize>(), 40);
    assert!(opened.iter().all(|count| *count <= 7), "{opened:?}");
    assert_eq!(spawner.orders(), 40);
    assert_eq!(spawner.running.most(), 40);
    reg.stop().await;
    assert_eq!(spawner.running.now(), 0);
}
