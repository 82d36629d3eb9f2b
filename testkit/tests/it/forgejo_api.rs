//! The API: the user of a token, the access of its scope, and the form of errors.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use testkit::{
    Browser,
    forgejo::{FakeForgejo, Options},
};

use crate::application::{App, REDIRECT};

#[tokio::test]
async fn token_identifies_its_user() {
    let app = App::start().await;
    let alice = app.sign_in("alice").await.access;
    let bob = app.sign_in("bob").await.access;
    for (scheme, token, login, id) in [("Bearer", &alice, "alice", 1), ("token", &bob, "bob", 2)] {
        let token = format!("{scheme} {token}");
        let (status, user) = app.api("/user", &token).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!((&user["login"], &user["id"]), (&json!(login), &json!(id)));
        let (_, repositories) = app.api("/user/repos", &token).await;
        assert_eq!(repositories[0]["full_name"], format!("{login}/{login}-notes"));
    }
    assert_eq!(app.forgejo.counters().user_lookups, ["alice", "bob"]);
}

#[tokio::test]
async fn two_tokens_of_one_second_are_the_same() {
    let app = App::start().await;
    // Two of three tokens made in a row are of the same second unless each call takes about one.
    let made = [(); 3].map(|()| app.forgejo.access_token("alice", "read:user"));
    assert!(made[0] == made[1] || made[1] == made[2]);
}

#[tokio::test]
async fn missing_scope_is_403_with_forgejos_sentence() {
    let app = App::start().await;
    let token = app.bearer("alice", "read:repository");
    let (status, body) = app.api("/user", &token).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let expected = "token does not have at least one of required scope(s): [read:user]";
    assert_eq!(body["message"], expected);
    assert_eq!(app.forgejo.counters().user_lookups, Vec::<String>::new());
}

#[tokio::test]
async fn scope_set_without_api_scope_has_all_access() {
    let app = App::start().await;
    let token = app.bearer("bob", "openid profile");
    for path in ["/user", "/user/repos"] {
        assert_eq!(app.status(path, &token).await, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn bad_token_is_401_with_an_echo_and_without_a_challenge() {
    let app = App::start().await;
    for path in ["/user", "/version"] {
        let (status, body) = app.api(path, "Bearer s3cret-garbage").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(body["message"].as_str().unwrap().contains("s3cret-garbage"));
        assert!(body["url"].as_str().unwrap().ends_with("/api/swagger"));
    }
    assert_eq!(app.status("/version", "").await, StatusCode::OK);
    assert_eq!(app.status("/user", "").await, StatusCode::UNAUTHORIZED);
    assert_eq!(app.status("/nothing", "").await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn token_ends_at_its_expiry_and_at_revocation() {
    let app = App::start().await;
    app.forgejo
        .set_lifetimes(Duration::from_secs(100), Duration::from_secs(1000));
    let token = app.bearer("alice", "read:user");
    app.forgejo.set_clock_skew(101);
    assert_eq!(app.status("/user", &token).await, StatusCode::UNAUTHORIZED);
    app.forgejo.set_clock_skew(0);
    assert_eq!(app.status("/user", &token).await, StatusCode::OK);
    app.forgejo.revoke("alice");
    assert_eq!(app.status("/user", &token).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn disabled_user_can_neither_call_nor_sign_in() {
    let app = App::start().await;
    let token = app.bearer("alice", "read:user");
    app.forgejo.disable("alice");
    assert_eq!(app.status("/user", &token).await, StatusCode::FORBIDDEN);
    let (mut browser, url) = (Browser::new(), app.authorize_url(&[]));
    let stuck = browser.authorize(&url, "alice", "alice-password", REDIRECT).await;
    let stuck = stuck.unwrap_err().to_string();
    assert!(stuck.contains("403"), "{stuck}");
    app.forgejo.enable("alice");
    assert_eq!(app.status("/user", &token).await, StatusCode::OK);
}

#[tokio::test]
async fn added_user_has_a_repository() {
    let app = App::start().await;
    assert_eq!(app.forgejo.add_user("carol", "carol-password"), 3);
    let token = app.sign_in("carol").await.access;
    let (_, repositories) = app.api("/user/repos", &format!("Bearer {token}")).await;
    assert_eq!(repositories.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn dropping_the_server_ends_it_and_debug_shows_no_secret() {
    let forgejo = FakeForgejo::start(Options::for_redirect(REDIRECT)).await.unwrap();
    assert!(!format!("{forgejo:?}").contains(forgejo.client_secret()));
    let url = forgejo.url().parse().unwrap();
    drop(forgejo);
    // The drop aborts the task with the listener, which ends at its next turn.
    let ended = async {
        while Browser::new().get(&url).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
}
