//! The API: who a token is, what its scope lets it do, and how refusals look.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use testkit::{
    Browser,
    forgejo::{FakeForgejo, Options},
};

use crate::support::{App, REDIRECT, answer, tokens};

#[tokio::test]
async fn a_token_tells_its_user() {
    let app = App::start().await;
    let alice = app.sign_in("alice").await.access;
    let bob = app.sign_in("bob").await.access;
    for (scheme, token, login, id) in [("Bearer", &alice, "alice", 1), ("token", &bob, "bob", 2)] {
        let (status, user) = app.api("/user", &format!("{scheme} {token}")).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!((&user["login"], &user["id"]), (&json!(login), &json!(id)));
        let (_, repositories) = app.api("/user/repos", &format!("{scheme} {token}")).await;
        assert_eq!(repositories[0]["full_name"], format!("{login}/{login}-notes"));
    }
    assert_eq!(app.forgejo.counters().users_asked, ["alice", "bob"]);
}

#[tokio::test]
async fn two_tokens_of_one_second_are_the_same() {
    let app = App::start().await;
    // Of three tokens made in a row, two are of the same second unless each call takes about one.
    let made = [(); 3].map(|()| app.forgejo.access_token("alice", "read:user"));
    assert!(made[0] == made[1] || made[1] == made[2]);
}

#[tokio::test]
async fn a_missing_scope_is_403_with_forgejos_sentence() {
    let app = App::start().await;
    let token = app.forgejo.access_token("alice", "read:repository");
    let (status, body) = app.api("/user", &format!("Bearer {token}")).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(
        body["message"],
        "token does not have at least one of required scope(s): [read:user]"
    );
    assert_eq!(app.forgejo.counters().users_asked, Vec::<String>::new());
}

#[tokio::test]
async fn a_scope_set_without_api_scope_has_all_access() {
    let app = App::start().await;
    app.forgejo.add_org_member("tools", "bob");
    let token = app.forgejo.access_token("bob", "openid profile");
    for path in ["/user", "/user/orgs", "/user/repos"] {
        assert_eq!(
            app.api(path, &format!("Bearer {token}")).await.0,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn organisations_need_their_scope_and_membership_is_204_or_404() {
    let app = App::start().await;
    app.forgejo.add_org_member("tools", "bob");
    let bob = format!(
        "Bearer {}",
        app.forgejo.access_token("bob", "read:user read:organization")
    );
    assert_eq!(app.api("/user/orgs", &bob).await.1[0]["name"], "tools");
    assert_eq!(app.api("/orgs/tools/members/bob", &bob).await.0, StatusCode::NO_CONTENT);
    assert_eq!(
        app.api("/orgs/tools/members/alice", &bob).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(app.api("/orgs/other/members/bob", &bob).await.0, StatusCode::NOT_FOUND);
    let alice = format!("Bearer {}", app.forgejo.access_token("alice", "read:user"));
    let (status, body) = app.api("/user/orgs", &alice).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .ends_with("[read:user read:organization]")
    );
}

#[tokio::test]
async fn a_bad_token_is_401_with_an_echo_and_without_a_challenge() {
    let app = App::start().await;
    for path in ["/user", "/version"] {
        let (status, body) = app.api(path, "Bearer s3cret-garbage").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(body["message"].as_str().unwrap().contains("s3cret-garbage"));
        assert!(body["url"].as_str().unwrap().ends_with("/api/swagger"));
    }
    let quiet = App::start_with(Options {
        echo_tokens: false,
        ..Options::default()
    })
    .await;
    let (_, body) = quiet.api("/user", "Bearer s3cret-garbage").await;
    assert!(!body.to_string().contains("s3cret"));
    assert_eq!(app.api("/version", "").await.0, StatusCode::OK);
    assert_eq!(app.api("/user", "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(app.api("/nothing", "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_token_dies_at_its_end_and_at_revocation() {
    let app = App::start().await;
    app.forgejo
        .set_lifetimes(Duration::from_secs(100), Duration::from_secs(1000));
    let token = format!("Bearer {}", app.forgejo.access_token("alice", "read:user"));
    app.forgejo.set_clock_skew(101);
    assert_eq!(app.api("/user", &token).await.0, StatusCode::UNAUTHORIZED);
    app.forgejo.set_clock_skew(0);
    assert_eq!(app.api("/user", &token).await.0, StatusCode::OK);
    app.forgejo.revoke("alice");
    assert_eq!(app.api("/user", &token).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_disabled_user_can_neither_call_nor_sign_in() {
    let app = App::start().await;
    let token = format!("Bearer {}", app.forgejo.access_token("alice", "read:user"));
    app.forgejo.disable("alice");
    assert_eq!(app.api("/user", &token).await.0, StatusCode::FORBIDDEN);
    let url = app.authorize_url(&[]);
    let stuck = Browser::new()
        .authorize(&url, "alice", "alice-password", REDIRECT)
        .await
        .unwrap_err();
    assert!(stuck.to_string().contains("403"), "{stuck}");
    app.forgejo.enable("alice");
    assert_eq!(app.api("/user", &token).await.0, StatusCode::OK);
}

#[tokio::test]
async fn userinfo_is_for_oauth_tokens_and_the_provider_describes_itself() {
    let app = App::start().await;
    let token = app.sign_in("alice").await.access;
    let (status, body) = answer(
        app.post("/login/oauth/userinfo")
            .bearer_auth(&token)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status, &body["sub"], &body["preferred_username"]),
        (StatusCode::OK, &json!("1"), &json!("alice"))
    );
    let refused = app.post("/login/oauth/userinfo").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let page = Browser::new()
        .get(&app.url("/.well-known/openid-configuration"))
        .await
        .unwrap();
    let discovered: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    assert_eq!(discovered["issuer"], app.forgejo.url());
    let page = Browser::new().get(&app.url("/login/oauth/keys")).await.unwrap();
    assert_eq!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn an_application_is_registered_over_the_api() {
    let app = App::start().await;
    let body = json!({ "name": "mine", "redirect_uris": [REDIRECT], "confidential_client": true });
    let register = |password: &'static str| {
        let request = app
            .post("/api/v1/user/applications/oauth2")
            .basic_auth("alice", Some(password));
        request
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
    };
    assert_eq!(register("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let (status, registered) = answer(register("alice-password").await.unwrap()).await;
    assert_eq!(
        (status, &registered["confidential_client"]),
        (StatusCode::CREATED, &json!(true))
    );
    let id = registered["client_id"].as_str().unwrap();
    let secret = registered["client_secret"].as_str().unwrap();
    assert!(secret.starts_with("gto_"));
    let code = app.code("bob", &[("client_id", id)]).await;
    tokens(
        app.exchange(&code, &[("client_id", id), ("client_secret", secret)])
            .await,
    );
}

#[tokio::test]
async fn added_people_and_repositories_are_there() {
    let app = App::start().await;
    assert_eq!(app.forgejo.add_user("carol", "carol-password"), 3);
    app.forgejo.add_repository("carol", "more");
    let token = app.sign_in("carol").await.access;
    let (_, repositories) = app.api("/user/repos", &format!("Bearer {token}")).await;
    assert_eq!(repositories.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn dropping_the_server_ends_it_and_debug_shows_no_secret() {
    let forgejo = FakeForgejo::start(Options::for_redirect(REDIRECT)).await.unwrap();
    assert!(!format!("{forgejo:?}").contains(forgejo.client_secret()));
    let url = forgejo.url().parse().unwrap();
    drop(forgejo);
    // The task that holds the listener is aborted by the drop and gone at its next turn.
    let gone = async {
        while Browser::new().get(&url).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.unwrap();
}
