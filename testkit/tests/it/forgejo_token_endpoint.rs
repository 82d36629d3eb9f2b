//! The token endpoint: its success and each row of its error table.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::application::{Answer, App, REDIRECT, VERIFIER, answer, assert_error, tokens};

const PATH: &str = "/login/oauth/access_token";

fn assert_unauthorized(answer: &Answer, description: &str) {
    assert_error(answer, "unauthorized_client", description);
}

#[tokio::test]
async fn code_becomes_a_pair_of_tokens_without_a_scope() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    assert_eq!((code.len(), code.starts_with("gta_")), (56, true));
    let (status, body) = app.exchange(&code, &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&json!("bearer"), &json!(3600))
    );
    assert!(body["access_token"].is_string() && body["refresh_token"].is_string());
    assert!(body.get("scope").is_none() && body.get("id_token").is_none());
}

#[tokio::test]
async fn openid_scope_adds_an_id_token() {
    let app = App::start().await;
    let code = app.code("alice", &[("scope", "openid read:user")]).await;
    assert!(app.exchange(&code, &[]).await.1["id_token"].is_string());
}

#[tokio::test]
async fn body_may_be_json_and_client_may_use_basic() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let body = json!({
        "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER,
    });
    let request = app.post(PATH).basic_auth(&app.id, Some(&app.secret));
    let request = request
        .header("content-type", "application/json")
        .body(body.to_string());
    let response = request.send().await.unwrap();
    let cache_control = &response.headers()["cache-control"];
    assert_eq!(cache_control, "max-age=0, private, must-revalidate");
    tokens(answer(response).await);
}

#[tokio::test]
async fn unknown_client() {
    let app = App::start().await;
    let changes = [("client_id", "unknown")];
    let description = "cannot load client with client id: 'unknown'";
    assert_error(&app.exchange("any", &changes).await, "invalid_client", description);
    assert_error(&app.refresh("any", &changes).await, "invalid_client", description);
}

#[tokio::test]
async fn wrong_secret_has_two_error_codes() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let changes = [("client_secret", "wrong")];
    assert_unauthorized(&app.exchange(&code, &changes).await, "invalid client secret");
    assert_error(
        &app.refresh("any", &changes).await,
        "invalid_client",
        "invalid client secret",
    );
    // The error did not use up the code.
    tokens(app.exchange(&code, &[]).await);
}

#[tokio::test]
async fn bad_basic_credentials() {
    let app = App::start().await;
    for header in ["Basic !!!", "Basic bm9jb2xvbg=="] {
        let request = app.post(PATH).header("authorization", header);
        let response = request.body("grant_type=refresh_token").send().await.unwrap();
        assert_error(
            &answer(response).await,
            "invalid_request",
            "cannot parse basic auth header",
        );
    }
}

#[tokio::test]
async fn unregistered_redirect_uri() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let changes = [("redirect_uri", "http://127.0.0.1:7/other")];
    assert_unauthorized(&app.exchange(&code, &changes).await, "unexpected redirect URI");
}

#[tokio::test]
async fn redirect_uri_other_than_the_authorizations() {
    let app = App::start().await;
    let second = "http://127.0.0.1:7/second";
    app.forgejo.set_redirect_uris(&[REDIRECT, second]);
    let code = app.code("alice", &[]).await;
    let refused = app.exchange(&code, &[("redirect_uri", second)]).await;
    assert_unauthorized(&refused, "redirect_uri does not match the authorization request");
}

#[tokio::test]
async fn unknown_code_reused_code_and_code_of_a_revoked_grant() {
    let app = App::start().await;
    let description = "client is not authorized";
    assert_unauthorized(&app.exchange("gta_unknown", &[]).await, description);
    let code = app.code("alice", &[]).await;
    tokens(app.exchange(&code, &[]).await);
    assert_unauthorized(&app.exchange(&code, &[]).await, description);
    let code = app.code("alice", &[]).await;
    assert_eq!(app.forgejo.revoke("alice"), 1);
    assert_unauthorized(&app.exchange(&code, &[]).await, description);
}

#[tokio::test]
async fn code_never_expires() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    app.forgejo.set_clock_skew(365 * 24 * 3600);
    tokens(app.exchange(&code, &[]).await);
}

#[tokio::test]
async fn pkce_is_checked_on_both_consent_paths() {
    let app = App::start().await;
    for path in ["asked", "skipped"] {
        let code = app.code("alice", &[]).await;
        for verifier in ["", "wrong"] {
            let refused = app.exchange(&code, &[("code_verifier", verifier)]).await;
            assert_unauthorized(&refused, "failed PKCE code challenge");
        }
        tokens(app.exchange(&code, &[]).await);
        let consents = app.forgejo.counters().requests_to("/login/oauth/grant");
        assert_eq!(consents, 1, "consent {path}");
    }
}

#[tokio::test]
async fn confidential_client_may_use_plain_pkce_or_none() {
    let app = App::start().await;
    let plain = [("code_challenge", VERIFIER), ("code_challenge_method", "plain")];
    let code = app.code("alice", &plain).await;
    tokens(app.exchange(&code, &[]).await);
    let none = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = app.code("alice", &none).await;
    tokens(app.exchange(&code, &[("code_verifier", "")]).await);
}

#[tokio::test]
async fn code_and_refresh_token_of_another_application() {
    let app = App::start().await;
    let other = app.other(true);
    let changes = [
        ("client_id", other.client_id.as_str()),
        ("client_secret", other.client_secret.as_str()),
    ];
    let code = app.code("alice", &[]).await;
    assert_error(&app.exchange(&code, &changes).await, "invalid_grant", "invalid grant");
    let tokens = app.sign_in("alice").await;
    let refused = app.refresh(&tokens.refresh, &changes).await;
    assert_error(&refused, "invalid_grant", "refresh token was not issued to this client");
}

#[tokio::test]
async fn expired_or_garbage_refresh_token() {
    let app = App::start().await;
    let description = "unable to parse refresh token";
    assert_unauthorized(&app.refresh("garbage", &[]).await, description);
    app.forgejo
        .set_lifetimes(Duration::from_secs(60), Duration::from_secs(600));
    let tokens = app.sign_in("alice").await;
    app.forgejo.set_clock_skew(601);
    assert_unauthorized(&app.refresh(&tokens.refresh, &[]).await, description);
    app.forgejo.set_clock_skew(0);
    assert_eq!(app.refresh(&tokens.refresh, &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn access_token_used_as_refresh_token_and_refresh_after_revocation() {
    let app = App::start().await;
    let tokens = app.sign_in("alice").await;
    let refused = app.refresh(&tokens.access, &[]).await;
    assert_unauthorized(&refused, "token is not a refresh token");
    app.forgejo.revoke("alice");
    let refused = app.refresh(&tokens.refresh, &[]).await;
    assert_error(&refused, "invalid_grant", "grant does not exist");
}

#[tokio::test]
async fn bad_grant_type() {
    let app = App::start().await;
    for grant_type in ["", "password", "urn:ietf:params:oauth:grant-type:device_code"] {
        let refused = app.exchange("any", &[("grant_type", grant_type)]).await;
        let text = "Only refresh_token or authorization_code grant type is supported";
        assert_error(&refused, "unsupported_grant_type", text);
    }
}
