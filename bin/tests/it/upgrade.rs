//! The databases of earlier releases: this program opens them, sessions revive, sign-ins go on.
//!
//! `bin/tests/fixtures` has one database for each release that changed the schema, written by the
//! program of that release; its README says how one is made.

mod database;
mod fixture;

use std::path::{Path, PathBuf};

use http::StatusCode;
use serde_json::{Value, json};
use testkit::{
    Browser, Client,
    broker::{ChildCommand, programs},
};

use self::fixture::{Restored, SUBSCRIBED};
use crate::harness::{
    assert_unauthorized, fake_forgejo_mcp, login_of, messages::assert_error, messages::tools_list_request,
    open_session, password,
};

/// Longer than access tokens and Forgejo's tokens live, and shorter than all else.
const TWO_HOURS: i64 = 2 * 3600;

#[tokio::test]
async fn sessions_of_an_earlier_release_revive_with_what_their_clients_have_set() {
    for source in fixture::all() {
        sessions_revive(&source).await;
    }
}

#[tokio::test]
async fn sign_ins_of_an_earlier_release_go_on() {
    for source in fixture::all() {
        sign_ins_go_on(&source).await;
    }
}

#[tokio::test]
async fn expired_tokens_of_an_earlier_release_are_renewed() {
    for source in fixture::all() {
        expired_tokens_are_renewed(&source).await;
    }
}

/// Shows that the fixture of this release can be made, and makes it if it is asked for.
#[tokio::test]
async fn database_of_this_program_is_a_fixture() {
    let directory = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("UPGRADE_FIXTURE").map(PathBuf::from);
    let directory = kept.unwrap_or_else(|| directory.path().to_owned());
    let program = std::env::var_os("UPGRADE_PROGRAM").map(PathBuf::from);
    let program = program.unwrap_or_else(|| programs().broker.clone());
    fixture::make(&program, &directory).await;
    sessions_revive(&directory).await;
    sign_ins_go_on(&directory).await;
    expired_tokens_are_renewed(&directory).await;
}

async fn open(source: &Path, child: ChildCommand, later: i64) -> Restored {
    Restored::open(&programs().broker, source, child, later).await
}

async fn sessions_revive(source: &Path) {
    let conformance = ChildCommand::plain(&programs().conformance_mcp);
    let restored = open(source, conformance, 0).await;
    assert_eq!(restored.fixture.with_settings.len(), 2);
    for session in &restored.fixture.with_settings {
        let context = format!("{}: {} session of {}", source.display(), session.state, session.login);
        let client = restored.client(&session.login, &session.id);
        // Only a child that has had a handshake answers a call.
        let simple = client.call_tool("test_simple_text", json!({})).await;
        assert!(text(&simple.unwrap()).contains("simple text"), "{context}");
        for (uri, expected) in [(SUBSCRIBED, "sent"), ("test://static-text", "no subscription")] {
            let result = client
                .call_tool("update_resource", json!({ "uri": uri }))
                .await
                .unwrap();
            assert_eq!(text(&result), expected, "{context}: {uri}");
        }
        // The tool logs three times at the level `info`. The session has the level `error`.
        let new = client.another_session();
        open_session(&new).await;
        for (session, messages) in [(&client, 0), (&new, 3)] {
            let call = json!({ "name": "test_tool_with_logging", "arguments": {} });
            let (answer, id) = session.request("tools/call", call).await.unwrap();
            assert!(answer.response_to(&id).unwrap()["result"].is_object(), "{context}");
            let logged = |message: &&Value| message["method"] == "notifications/message";
            assert_eq!(answer.messages.iter().filter(logged).count(), messages, "{context}");
        }
        let other = if session.login == "alice" { "bob" } else { "alice" };
        assert_status(&restored.client(other, &session.id), 403).await;
    }
    assert_status(&restored.client("bob", &restored.fixture.ended), 404).await;
    assert_status(&restored.client("bob", &"0".repeat(48)), 410).await;
}

async fn sign_ins_go_on(source: &Path) {
    let restored = open(source, fake_forgejo_mcp(), 0).await;
    let alice = restored.client("alice", &restored.fixture.at_forgejo);
    assert_eq!(login_of(&alice).await, "alice");
    for login in ["alice", "bob"] {
        let client = restored.client(login, "none");
        client.set_session_id(None);
        open_session(&client).await;
        assert_eq!(login_of(&client).await, login);
        assert_eq!(
            restored.forgejo.counters().refreshes,
            0,
            "the stored token of Forgejo is good"
        );

        // The refresh token rotates, and the session goes on with the new access token.
        let before = (client.access_token(), client.refresh_token());
        discover(&client).await;
        client.refresh().await.unwrap();
        let after = (client.access_token(), client.refresh_token());
        assert!(before.0 != after.0 && before.1 != after.1);
        assert_eq!(login_of(&client).await, login);
    }
    // The registration is good for another sign-in.
    let again = restored.client("alice", &restored.fixture.at_forgejo);
    discover(&again).await;
    let mut browser = Browser::new();
    again
        .authorize(&mut browser, "alice", &password("alice"))
        .await
        .unwrap();
    again.exchange().await.unwrap();
    assert_eq!(login_of(&again).await, "alice");
}

async fn expired_tokens_are_renewed(source: &Path) {
    let restored = open(source, fake_forgejo_mcp(), TWO_HOURS).await;
    let alice = restored.client("alice", &restored.fixture.at_forgejo);
    assert_unauthorized(&alice).await;
    assert_eq!(restored.forgejo.counters().refreshes, 0);
    discover(&alice).await;
    alice.refresh().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
    assert_eq!(restored.forgejo.counters().refreshes, 1);
}

async fn discover(client: &Client) {
    client.probe().await.unwrap();
    client.discover().await.unwrap();
}

/// Checks the status of a request.
async fn assert_status(client: &Client, status: u16) {
    let answer = client.post(tools_list_request("x")).await.unwrap();
    assert_eq!(answer.status, StatusCode::from_u16(status).unwrap());
    assert_error(&answer, status, "x");
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}
