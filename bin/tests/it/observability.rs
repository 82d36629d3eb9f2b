//! The broker as its operator sees it from outside: what it counts, and what its log says of each session.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use testkit::{Browser, Client, client::Answer};

use crate::{
    harness::{Harness, login_of, password},
    lifecycle::call_that_hangs,
    sessions::until_children,
};

const TOKEN: &str = "a-token-of-whoever-watches";

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
async fn metrics_are_off_unless_they_are_asked_for() {
    let harness = Harness::new(&[]).await;
    assert_eq!(metrics(&harness, None).await.status, 404);
    assert_eq!(metrics(&harness, Some(TOKEN)).await.status, 404);
}

#[tokio::test]
async fn metrics_tell_what_happened_to_sessions_and_nothing_of_whose_they_are() {
    let harness = Harness::new(&[
        ("metrics.enabled", "true"),
        ("metrics.token", TOKEN),
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
    // Asleep, and awake again.
    harness.broker.log().contains("session is dormant: it was idle").await;
    assert_eq!(login_of(&alice).await, "alice");
    // A child that dies, and a call on it, so that it is not put to sleep first.
    let mut calls = call_that_hangs(&harness, alice).await;
    until_children(&harness, 1).await[0].kill().unwrap();
    harness.broker.log().contains("the child ended by itself").await;
    let (_, _, alice) = calls.join_next().await.unwrap().unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    alice.delete().await.unwrap();

    let answer = metrics(&harness, Some(TOKEN)).await;
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
    // On a slow machine the session may have slept once more.
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
    assert!(!harness.broker.log().text().contains(TOKEN), "the token is in the log");
}

#[tokio::test]
async fn every_metric_is_in_the_documents() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md")).unwrap();
    let harness = Harness::new(&[("metrics.enabled", "true")]).await;
    // The first exchange is counted once it has been answered.
    metrics(&harness, None).await;
    let answer = metrics(&harness, None).await;
    let text = answer.text();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        // The page has the names of samples, which end as their kind wants it.
        let is_there = |suffix| page.contains(&format!("| `{name}{suffix}` |"));
        assert!(
            ["", "_total", "_info"].into_iter().any(is_there),
            "{name} is not in docs/metrics.md"
        );
    }
}

/// What a line says of the session that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    user: String,
    client: String,
    grant: String,
}

#[tokio::test]
async fn every_line_of_a_session_carries_its_user_and_client_and_never_its_id() {
    let mut harness = Harness::new(&[("log.filter", "info,session=debug,supervisor=debug,bridge=debug")]).await;
    let (alice, bob) = (harness.in_session("alice").await, harness.in_session("bob").await);
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    let first = until_children(&harness, 2).await;
    // Everyone moves: a new sign-in has made the tokens of before useless.
    for login in ["alice", "bob"] {
        let moved = harness.client();
        moved
            .sign_in(&mut Browser::new(), login, &password(login))
            .await
            .unwrap();
    }
    harness
        .broker
        .log()
        .contains_times("session moved to a new backend", 2)
        .await;
    for child in first {
        child.exited().await.unwrap();
    }
    for child in until_children(&harness, 2).await {
        child.kill().unwrap();
        child.exited().await.unwrap();
    }
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    // The records know no client: the first request after a restart says it.
    harness.broker.terminate().await.unwrap();
    harness.broker.start_again().await.unwrap();
    for (client, login) in [(&alice, "alice"), (&bob, "bob")] {
        assert_eq!(login_of(client).await, login);
    }
    let id = alice.session_id().unwrap();
    alice.delete().await.unwrap();
    harness.broker.terminate().await.unwrap();

    let log = harness.broker.log().text();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
    let mut said: BTreeMap<String, usize> = BTreeMap::new();
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
        *said.entry(event.to_owned()).or_default() += 1;
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
        assert!(said.contains_key(event), "no {event:?} in a session: {said:?}");
    }

    // Nothing of a session is anywhere else: neither what names it nor what only sessions do.
    for line in &lines {
        let of = line["spans"][0]["session"].as_str();
        for name in ["session", "tag"] {
            assert!(line[name].is_null() || line[name].as_str() == of, "{line}");
        }
        let of_child = line["target"] == "child" || line["path"] == "/mcp" && line["status"] == 200;
        assert!(!of_child || of.is_some(), "{line}");
    }
    let clients: Vec<&str> = owners.values().map(|owner| owner.client.as_str()).collect();
    assert_eq!(owners.len(), 2, "{owners:?}");
    for client in [&alice, &bob] {
        assert!(clients.contains(&client.client_id().unwrap().as_str()), "{owners:?}");
    }
    assert!(!log.contains(&id) && !log.contains(&bob.session_id().unwrap()));
}
