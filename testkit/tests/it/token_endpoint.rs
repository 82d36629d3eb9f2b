//! The token endpoint: its success and each row of its error table.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{App, REDIRECT, VERIFIER, answer, assert_refused, other, tokens};

#[tokio::test]
async fn a_code_becomes_a_pair_of_tokens_without_a_scope() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    assert_eq!((code.len(), code.starts_with("gta_")), (56, true));
    let (status, body) = app.exchange(&code, &[]).await;
    assert_eq!(
        (status, &body["token_type"], &body["expires_in"]),
        (StatusCode::OK, &json!("bearer"), &json!(3600))
    );
    assert!(body["access_token"].is_string() && body["refresh_token"].is_string());
    assert!(body.get("scope").is_none() && body.get("id_token").is_none());
}

#[tokio::test]
async fn an_openid_scope_brings_an_id_token() {
    let app = App::start().await;
    let code = app.code("alice", &[("scope", "openid read:user")]).await;
    assert!(app.exchange(&code, &[]).await.1["id_token"].is_string());
}

#[tokio::test]
async fn the_body_may_be_json_and_the_client_may_use_basic() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let body = json!({
        "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT, "code_verifier": VERIFIER,
    });
    let basic = BASE64_STANDARD.encode(format!("{}:{}", app.id, app.secret));
    let request = app
        .post("/login/oauth/access_token")
        .header("content-type", "application/json")
        .header("authorization", format!("Basic {basic}"));
    let response = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(
        response.headers()["cache-control"],
        "max-age=0, private, must-revalidate"
    );
    tokens(answer(response).await);
}

#[tokio::test]
async fn an_unknown_client() {
    let app = App::start().await;
    let changes = [("client_id", "nobody")];
    let description = "cannot load client with client id: 'nobody'";
    assert_refused(&app.exchange("any", &changes).await, "invalid_client", description);
    assert_refused(&app.refresh("any", &changes).await, "invalid_client", description);
}

#[tokio::test]
async fn a_wrong_secret_has_two_names() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let changes = [("client_secret", "wrong")];
    assert_refused(
        &app.exchange(&code, &changes).await,
        "unauthorized_client",
        "invalid client secret",
    );
    assert_refused(
        &app.refresh("any", &changes).await,
        "invalid_client",
        "invalid client secret",
    );
    // The refusal did not use the code up.
    tokens(app.exchange(&code, &[]).await);
}

#[tokio::test]
async fn bad_basic_credentials() {
    let app = App::start().await;
    for header in ["Basic !!!", "Basic bm9jb2xvbg=="] {
        let request = app.post("/login/oauth/access_token").header("authorization", header);
        let refused = answer(request.body("grant_type=refresh_token").send().await.unwrap()).await;
        assert_refused(&refused, "invalid_request", "cannot parse basic auth header");
    }
}

#[tokio::test]
async fn an_unregistered_redirect_uri() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let refused = app
        .exchange(&code, &[("redirect_uri", "http://127.0.0.1:7/other")])
        .await;
    assert_refused(&refused, "unauthorized_client", "unexpected redirect URI");
}

#[tokio::test]
async fn a_redirect_uri_other_than_the_authorizations() {
    let app = App::start().await;
    let second = "http://127.0.0.1:7/second";
    app.forgejo.set_redirect_uris(&[REDIRECT, second]);
    let code = app.code("alice", &[]).await;
    let refused = app.exchange(&code, &[("redirect_uri", second)]).await;
    assert_refused(
        &refused,
        "unauthorized_client",
        "redirect_uri does not match the authorization request",
    );
}

#[tokio::test]
async fn an_unknown_or_reused_code_or_one_whose_grant_was_revoked() {
    let app = App::start().await;
    let refused = ("unauthorized_client", "client is not authorized");
    assert_refused(&app.exchange("gta_unknown", &[]).await, refused.0, refused.1);
    let code = app.code("alice", &[]).await;
    tokens(app.exchange(&code, &[]).await);
    assert_refused(&app.exchange(&code, &[]).await, refused.0, refused.1);
    let code = app.code("alice", &[]).await;
    assert_eq!(app.forgejo.revoke("alice"), 1);
    assert_refused(&app.exchange(&code, &[]).await, refused.0, refused.1);
}

#[tokio::test]
async fn a_code_waits_for_ever() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    app.forgejo.set_clock_skew(365 * 24 * 3600);
    tokens(app.exchange(&code, &[]).await);
}

#[tokio::test]
async fn a_failed_pkce_on_both_consent_paths() {
    let app = App::start().await;
    for path in ["asked", "skipped"] {
        let code = app.code("alice", &[]).await;
        for verifier in ["", "wrong"] {
            let refused = app.exchange(&code, &[("code_verifier", verifier)]).await;
            assert_refused(&refused, "unauthorized_client", "failed PKCE code challenge");
        }
        tokens(app.exchange(&code, &[]).await);
        assert_eq!(
            app.forgejo.counters().requests_to("/login/oauth/grant"),
            1,
            "consent {path}"
        );
    }
}

#[tokio::test]
async fn plain_pkce_and_none_at_all_for_a_confidential_client() {
    let app = App::start().await;
    let plain = [("code_challenge", VERIFIER), ("code_challenge_method", "plain")];
    let code = app.code("alice", &plain).await;
    tokens(app.exchange(&code, &[]).await);
    let none = [("code_challenge", ""), ("code_challenge_method", "")];
    let code = app.code("alice", &none).await;
    tokens(app.exchange(&code, &[("code_verifier", "")]).await);
}

#[tokio::test]
async fn a_code_of_another_application() {
    let app = App::start().await;
    let other = other(&app, true);
    let code = app.code("alice", &[]).await;
    let changes = [
        ("client_id", other.client_id.as_str()),
        ("client_secret", other.client_secret.as_str()),
    ];
    assert_refused(&app.exchange(&code, &changes).await, "invalid_grant", "invalid grant");
}

#[tokio::test]
async fn an_expired_or_garbage_refresh_token() {
    let app = App::start().await;
    let refused = ("unauthorized_client", "unable to parse refresh token");
    assert_refused(&app.refresh("garbage", &[]).await, refused.0, refused.1);
    app.forgejo
        .set_lifetimes(Duration::from_secs(60), Duration::from_secs(600));
    let tokens = app.sign_in("alice").await;
    app.forgejo.set_clock_skew(601);
    assert_refused(&app.refresh(&tokens.refresh, &[]).await, refused.0, refused.1);
    app.forgejo.set_clock_skew(0);
    assert_eq!(app.refresh(&tokens.refresh, &[]).await.0, StatusCode::OK);
}

#[tokio::test]
async fn an_access_token_used_as_refresh_token() {
    let app = App::start().await;
    let tokens = app.sign_in("alice").await;
    let refused = app.refresh(&tokens.access, &[]).await;
    assert_refused(&refused, "unauthorized_client", "token is not a refresh token");
}

#[tokio::test]
async fn a_refresh_after_the_user_revoked() {
    let app = App::start().await;
    let tokens = app.sign_in("alice").await;
    app.forgejo.revoke("alice");
    assert_refused(
        &app.refresh(&tokens.refresh, &[]).await,
        "invalid_grant",
        "grant does not exist",
    );
}

#[tokio::test]
async fn a_refresh_token_of_another_client() {
    let app = App::start().await;
    let other = other(&app, true);
    let tokens = app.sign_in("alice").await;
    let changes = [
        ("client_id", other.client_id.as_str()),
        ("client_secret", other.client_secret.as_str()),
    ];
    let refused = app.refresh(&tokens.refresh, &changes).await;
    assert_refused(&refused, "invalid_grant", "refresh token was not issued to this client");
}

#[tokio::test]
async fn a_bad_grant_type() {
    let app = App::start().await;
    for grant_type in ["", "password", "urn:ietf:params:oauth:grant-type:device_code"] {
        let refused = app.exchange("any", &[("grant_type", grant_type)]).await;
        let text = "Only refresh_token or authorization_code grant type is supported";
        assert_refused(&refused, "unsupported_grant_type", text);
    }
}
