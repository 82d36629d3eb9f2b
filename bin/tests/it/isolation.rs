//! Isolation between users: sessions, tokens, environment and secrets stay apart.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{
    Harness, login_of,
    messages::{assert_equal_ids_stay_apart, tool_call_request},
    open_session,
};

#[tokio::test]
async fn each_session_acts_as_its_own_user() {
    let harness = Harness::new(&[]).await;
    let mut sessions = Vec::new();
    for login in ["alice", "bob"] {
        let first = harness.in_session(login).await;
        for _ in 0..2 {
            let another = first.another_session();
            open_session(&another).await;
            sessions.push((login, another));
        }
        sessions.push((login, first));
    }

    let mut calls = JoinSet::new();
    for (login, session) in sessions {
        calls.spawn(async move {
            for _ in 0..10 {
                assert_eq!(login_of(&session).await, login);
            }
        });
    }
    calls.join_all().await;
    assert_eq!(
        harness.broker.children().unwrap().len(),
        6,
        "each session has its own child"
    );
}

#[tokio::test]
async fn equal_request_ids_of_two_sessions_get_their_own_responses() {
    let harness = Harness::new(&[]).await;
    let (alice, bob) = tokio::join!(harness.in_session("alice"), harness.in_session("bob"));
    let echo = |id, text: &str| tool_call_request(id, "test_echo", &json!({ "text": text }));
    assert_equal_ids_stay_apart(&alice, &bob, echo).await;
}

#[tokio::test]
async fn children_have_users_of_their_own_if_the_broker_is_root() {
    let user = |process: &str| {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u32>().unwrap()
    };
    let own = user("self");
    for (setting, private) in [("auto", own == 0), ("off", false)] {
        let harness = Harness::new(&[("child.isolation.users", setting)]).await;
        // The programs of the tests may lie below a private directory.
        let private = private && harness.broker.log().count("private users are not available") == 0;
        let _sessions = [harness.in_session("alice").await, harness.in_session("bob").await];
        let children = harness.broker.children().unwrap();
        let users: BTreeSet<u32> = children.iter().map(|child| user(&child.pid.to_string())).collect();
        if private {
            assert!(users.len() == 2 && !users.contains(&own), "{users:?}");
        } else {
            assert_eq!(users, BTreeSet::from([own]));
        }
    }
}

#[tokio::test]
async fn child_inherits_only_listed_environment_variables() {
    let harness = Harness::new(&[("log.format", "json")]).await;
    let session = harness.in_session("alice").await;
    let result = session.call_tool("test_environment", json!({})).await.unwrap();
    let names: BTreeSet<String> = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
    assert!(
        names.contains("FORGEJO_ACCESS_TOKEN") && names.contains("PATH"),
        "{names:?}"
    );
    let leaked: Vec<&String> = names
        .iter()
        .filter(|name| name.starts_with("BROKER_") || name.starts_with("CARGO"))
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
}

#[tokio::test]
async fn no_secret_reaches_the_log() {
    let harness = Harness::new(&[("log.filter", "trace")]).await;
    let session = harness.in_session("alice").await;
    login_of(&session).await;
    // Every secret of this test, rejected and replaced ones included.
    let mut secrets = vec![session.verifier().unwrap()];
    let first = [session.access_token(), session.refresh_token()].map(Option::unwrap);
    session.refresh().await.unwrap();
    let wrong = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "an-invalid-refresh-token"),
        ("client_secret", "an-invalid-client-secret"),
        ("client_id", "unknown"),
    ];
    assert!(session.token_request(&wrong).await.unwrap().status.is_client_error());
    let stranger = harness.client();
    stranger.set_access_token(Some("an-invalid-bearer"));
    assert_eq!(stranger.request("ping", Value::Null).await.unwrap().0.status, 401);
    secrets.extend(first);
    secrets.extend(
        [
            "an-invalid-refresh-token",
            "an-invalid-client-secret",
            "an-invalid-bearer",
        ]
        .map(str::to_owned),
    );
    // Like Forgejo's message, the fake of forgejo-mcp writes a rejected token to its standard
    // error.
    harness.forgejo.revoke("alice");
    let (refused, id) = session
        .request("tools/call", json!({ "name": "get_my_user_info", "arguments": {} }))
        .await
        .unwrap();
    assert_eq!(refused.response_to(&id).unwrap()["error"]["code"], json!(-32603));

    let access = session.access_token().unwrap();
    let refresh = session.refresh_token().unwrap();
    let id = session.session_id().unwrap();
    let code = session.code().unwrap();
    let log = harness.broker.log().text();
    assert!(
        log.contains("\"level\":\"TRACE\""),
        "the log has no trace lines, so it proves nothing"
    );
    for secret in [
        access.as_str(),
        &refresh,
        &id,
        &code,
        harness.forgejo.client_secret(),
        "alice-password",
    ] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
    let key = std::fs::read_to_string(harness.broker.directory().join("broker.key")).unwrap();
    for word in key.split_whitespace().filter(|word| word.len() >= 32) {
        assert!(!log.contains(word), "the key is in the log");
    }
    // Forgejo's tokens are JWTs, which begin with these letters.
    assert!(!log.contains("eyJ"), "a Forgejo token is in the log");
    // Recent writes are in the write-ahead log.
    let stored =
        ["broker.db", "broker.db-wal"].map(|file| std::fs::read(harness.broker.directory().join(file)).unwrap());
    let stored = stored.concat();
    let holds = |text: &str| stored.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(
        holds("alice") && holds(&session.client_id().unwrap()),
        "the files lack the account, so they prove nothing"
    );
    for secret in [access.as_str(), &refresh, &code, "eyJ"] {
        assert!(!holds(secret), "a secret is in the database");
    }
    assert!(session.request("ping", Value::Null).await.is_ok());
}
