//! The token endpoint: its success and each row of its error table.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use crate::application::{App, REDIRECT, VERIFIER, answer, assert_error, tokens};

const PATH: &str = "/login/oauth/access_token";

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
    assert!(body.get("scope").is_none());
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
    assert_eq!(
        response.headers()["cache-control"],
        "max-age=0, private, must-revalidate"
    );
    tokens(answer(response).await);
}

#[tokio::test]
async fn errors_of_an_exchange_do_not_use_up_its_code_on_both_consent_paths() {
    let app = App::start().await;
    for consent in ["asked", "skipped"] {
        let code = app.code("alice", &[]).await;
        for (change, error, description) in rows(
            "client_id=unknown         invalid_client         cannot load client with client id: 'unknown'
             client_secret=wrong       unauthorized_client    invalid client secret
             redirect_uri=http://127.0.0.1:7/other   unauthorized_client  unexpected redirect URI
             redirect_uri=http://127.0.0.1:7/second  unauthorized_client  redirect_uri does not match the authorization request
             code=gta_unknown          unauthorized_client    client is not authorized
             code_verifier=            unauthorized_client    failed PKCE code challenge
             code_verifier=wrong       unauthorized_client    failed PKCE code challenge
             grant_type=               unsupported_grant_type Only refresh_token or authorization_code grant type is supported
             grant_type=password       unsupported_grant_type Only refresh_token or authorization_code grant type is supported
             grant_type=urn:ietf:params:oauth:grant-type:device_code unsupported_grant_type Only refresh_token or authorization_code grant type is supported",
        ) {
            assert_error(&app.exchange(&code, &[change]).await, error, description);
        }
        let (id, secret) = other_application(&app);
        let foreign = app
            .exchange(&code, &[("client_id", &id), ("client_secret", &secret)])
            .await;
        assert_error(&foreign, "invalid_grant", "invalid grant");
        tokens(app.exchange(&code, &[]).await);
        let reused = app.exchange(&code, &[]).await;
        assert_error(&reused, "unauthorized_client", "client is not authorized");
        let consents = app.forgejo.counters().requests_to("/login/oauth/grant");
        assert_eq!(consents, 1, "consent {consent}");
    }
    let code = app.code("alice", &[]).await;
    assert_eq!(app.forgejo.revoke("alice"), 1);
    let revoked = app.exchange(&code, &[]).await;
    assert_error(&revoked, "unauthorized_client", "client is not authorized");
}

#[tokio::test]
async fn errors_of_a_refresh() {
    let app = App::start().await;
    let (access, refresh) = (Duration::from_secs(60), Duration::from_secs(600));
    app.forgejo.set_lifetimes(access, refresh);
    let first = app.sign_in("alice").await;
    for (change, error, description) in rows(
        "client_id=unknown      invalid_client       cannot load client with client id: 'unknown'
         client_secret=wrong    invalid_client       invalid client secret
         refresh_token=garbage  unauthorized_client  unable to parse refresh token",
    ) {
        assert_error(&app.refresh("any", &[change]).await, error, description);
    }
    let refused = app.refresh(&first.access, &[]).await;
    assert_error(&refused, "unauthorized_client", "token is not a refresh token");
    let (id, secret) = other_application(&app);
    let changes = [("client_id", id.as_str()), ("client_secret", &secret)];
    let foreign = app.refresh(&first.refresh, &changes).await;
    assert_error(&foreign, "invalid_grant", "refresh token was not issued to this client");
    app.forgejo.set_clock_skew(601);
    let expired = app.refresh(&first.refresh, &[]).await;
    assert_error(&expired, "unauthorized_client", "unable to parse refresh token");
    app.forgejo.set_clock_skew(0);
    let second = tokens(app.refresh(&first.refresh, &[]).await);
    app.forgejo.revoke("alice");
    let revoked = app.refresh(&second.refresh, &[]).await;
    assert_error(&revoked, "invalid_grant", "grant does not exist");
}

/// The rows of a table: a changed field, the error code, and its description.
fn rows(table: &str) -> impl Iterator<Item = ((&str, &str), &str, &str)> {
    table.lines().map(|row| {
        let (change, row) = row.trim().split_once(' ').expect("three columns");
        let (error, description) = row.trim().split_once(' ').expect("three columns");
        (
            change.split_once('=').expect("three columns"),
            error,
            description.trim(),
        )
    })
}

fn other_application(app: &App) -> (String, String) {
    let other = app.other(true);
    (other.client_id, other.client_secret)
}

#[tokio::test]
async fn bad_basic_credentials() {
    let app = App::start().await;
    for header in ["Basic !!!", "Basic bm9jb2xvbg=="] {
        let request = app.post(PATH).header("authorization", header);
        let response = request.body("grant_type=refresh_token").send().await.unwrap();
        let refused = answer(response).await;
        assert_error(&refused, "invalid_request", "cannot parse basic auth header");
    }
}

#[tokio::test]
async fn code_never_expires() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    app.forgejo.set_clock_skew(365 * 24 * 3600);
    tokens(app.exchange(&code, &[]).await);
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
