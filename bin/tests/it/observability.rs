//! Metrics and logs: the counters, and the fields of each session's log lines.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use testkit::{Client, client::Answer};
use tokio::time::Instant;

use crate::harness::{Harness, login_of, start_endless_call};

const METRICS_TOKEN: &str = "the-token-of-the-metrics-scraper";

async fn metrics(harness: &Harness, token: Option<&str>) -> Answer {
    let client = Client::new(format!("{}/metrics", harness.broker.url()).parse().unwrap());
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert(header::AUTHORIZATION, value);
    }
    client.raw(Method::GET, headers, "").await.unwrap()
}

#[tokio::test]
async fn metrics_are_disabled_by_default() {
    let harness = Harness::new(&[]).await;
    assert_eq!(metrics(&harness, None).await.status, 404);
    assert_eq!(metrics(&harness, Some(METRICS_TOKEN)).await.status, 404);
}

#[tokio::test]
async fn metrics_count_session_events_without_identifying_users() {
    let harness = Harness::new(&[
        ("metrics.enabled", "true"),
        ("metrics.token", METRICS_TOKEN),
        ("session.max_sessions_per_user", "1"),
        ("session.idle_timeout", "1s"),
        ("session.reap_interval", "100ms"),
        ("log.filter", "trace"),
    ])
    .await;
    for wrong in [None, Some("another-token")] {
        let answer = metrics(&harness, wrong).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("www-authenticate")),
            (401, Some("Bearer"))
        );
    }

    let alice = harness.in_session("alice").await;
    let session = alice.session_id().unwrap();
    // The session becomes dormant and is revived.
    harness.broker.log().contains("session is dormant: it was idle").await;
    assert_eq!(login_of(&alice).await, "alice");
    // A child dies. The call in flight keeps its session from becoming idle first.
    let mut calls = start_endless_call(&harness, alice).await;
    harness.wait_for_children(1).await[0].kill().unwrap();
    harness.broker.log().contains("the child ended by itself").await;
    let (_, _, alice) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    alice.delete().await.unwrap();

    let answer = metrics(&harness, Some(METRICS_TOKEN)).await;
    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text();
    assert!(text.ends_with("# EOF\n"), "{text}");
    for line in [
        "sessions{state=\"live\"} 0",
        "sessions_opened_total 1",
        "sessions_slept_total{reason=\"child_died\"} 1",
        "children_died_total 1",
        "sessions_ended_total{reason=\"deleted\"} 1",
        "spawns_total{purpose=\"opening\",outcome=\"started\"} 1",
        "spawn_duration_seconds_count{purpose=\"opening\"} 1",
        "http_exchanges_total{route=\"metrics\",status=\"401\"} 2",
        "http_exchanges_total{route=\"mcp\",status=\"204\"} 1",
    ] {
        let line = format!("forgejo_mcp_broker_{line}");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    // On a slow machine the session may have been dormant more than once.
    for series in [
        "sessions_slept_total{reason=\"idle\"}",
        "spawns_total{purpose=\"revival\",outcome=\"started\"}",
        "revivals_total{outcome=\"revived\"}",
        "request_wait_seconds_count",
    ] {
        let series = format!("forgejo_mcp_broker_{series} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&series)).unwrap();
        assert!(count.parse::<u32>().unwrap() > 0, "{series}{count}");
    }
    for private in [
        "alice",
        &session,
        &alice.client_id().unwrap(),
        &alice.access_token().unwrap(),
    ] {
        assert!(!text.contains(private), "{private} is in\n{text}");
    }
    assert!(
        !harness.broker.log().text().contains(METRICS_TOKEN),
        "the metrics token is in the log"
    );
}

#[tokio::test]
async fn every_metric_is_documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let harness = Harness::new(&[("metrics.enabled", "true")]).await;
    // An HTTP exchange is counted after its response.
    metrics(&harness, None).await;
    let answer = metrics(&harness, None).await;
    let text = answer.text();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        // The page has the names of samples, which carry the suffix of their kind.
        let is_documented = |suffix| page.contains(&format!("| `{name}{suffix}` |"));
        assert!(
            ["", "_total", "_info"].into_iter().any(is_documented),
            "{name} is not in docs/metrics.md"
        );
    }
}

/// The fields of a log line that identify the owner of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    user: String,
    client: String,
    grant: String,
}

#[tokio::test]
async fn log_lines_of_a_session_carry_user_and_client_and_never_its_id() {
    let mut harness = Harness::new(&[("log.filter", "info,session=debug,supervisor=debug,bridge=debug")]).await;
    let (alice, bob) = (harness.in_session("alice").await, harness.in_session("bob").await);
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    let first = harness.wait_for_children(2).await;
    // A new sign-in invalidates the earlier Forgejo tokens, so that both sessions move.
    for login in ["alice", "bob"] {
        harness.signed_in(login).await;
    }
    harness
        .broker
        .log()
        .contains_times("session moved to a new backend", 2)
        .await;
    for child in first {
        child.exited().await.unwrap();
    }
    for child in harness.wait_for_children(2).await {
        child.kill().unwrap();
        child.exited().await.unwrap();
    }
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    // Records do not name the client: the broker learns it from the first request after a restart.
    harness.restart().await;
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    let id = alice.session_id().unwrap();
    alice.delete().await.unwrap();
    harness.broker.terminate().await.unwrap();

    let log = harness.broker.log().text();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
    let mut events: BTreeMap<String, usize> = BTreeMap::new();
    for line in &lines {
        let Some(span) = line["spans"].as_array().and_then(|spans| spans.first()) else {
            continue;
        };
        let field = |name: &str| {
            span[name]
                .as_str()
                .unwrap_or_else(|| panic!("no {name} in {line}"))
                .to_owned()
        };
        let owner = Owner {
            user: field("user"),
            client: field("client"),
            grant: field("grant"),
        };
        let known = owners.entry(field("session")).or_insert_with(|| owner.clone());
        assert_eq!(*known, owner, "{line}");
        let event = if line["target"] == "child" {
            "child"
        } else {
            line["message"].as_str().unwrap()
        };
        *events.entry(event.to_owned()).or_default() += 1;
    }
    for event in [
        "child",
        "request completed",
        "child started",
        "child ended",
        "the child ended by itself",
        "session is dormant: its backend died",
        "session moved to a new backend",
        "session revived",
        "session ended",
        "backend stopped",
    ] {
        assert!(events.contains_key(event), "no {event:?} in a session: {events:?}");
    }

    // No line outside a session's span names a session or reports an event that only sessions have.
    for line in &lines {
        let session = line["spans"][0]["session"].as_str();
        for name in ["session", "tag"] {
            assert!(line[name].is_null() || line[name].as_str() == session, "{line}");
        }
        let belongs_to_session = line["target"] == "child" || line["path"] == "/mcp" && line["status"] == 200;
        assert!(!belongs_to_session || session.is_some(), "{line}");
    }
    let clients: Vec<&str> = owners.values().map(|owner| owner.client.as_str()).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
    for client in [&alice, &bob] {
        assert!(clients.contains(&client.client_id().unwrap().as_str()), "{owners:?}");
    }
    assert!(!log.contains(&id) && !log.contains(&bob.session_id().unwrap()));
}

#[tokio::test]
async fn deleted_database_is_noticed_and_the_broker_stays_alive() {
    let harness = Harness::new(&[]).await;
    let status = async |path: &str| {
        let client = Client::new(format!("{}{path}", harness.broker.url()).parse().unwrap());
        client.raw(Method::GET, HeaderMap::new(), "").await.unwrap().status
    };
    assert_eq!(status("/readyz").await, 200);
    let deleted = Instant::now();
    std::fs::remove_file(harness.broker.directory().join("broker.db")).unwrap();
    // Without any request.
    harness.broker.log().contains("readiness probe failed").await;
    assert!(deleted.elapsed() < Duration::from_secs(5), "{:?}", deleted.elapsed());
    assert_eq!(status("/readyz").await, 503);
    assert_eq!(status("/healthz").await, 200);
    let log = harness.broker.log().text();
    let line = log
        .lines()
        .find(|line| line.contains("readiness probe failed"))
        .unwrap();
    assert!(line.contains("ERROR") && line.contains("is gone"), "{line}");
}
