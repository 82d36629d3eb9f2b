//! The endpoints authorize and grant: consent, its skip, its one slot, and the redirects back.

use reqwest::StatusCode;
use testkit::Browser;
use url::Url;

use crate::application::{Answer, App, REDIRECT, SCOPE, answer, parameter, tokens};

fn assert_denied(redirect: &Url, error: &str, description: &str) {
    assert_eq!(parameter(redirect, "error").as_deref(), Some(error));
    assert_eq!(parameter(redirect, "error_description").as_deref(), Some(description));
}

#[tokio::test]
async fn confidential_client_with_a_grant_skips_consent_and_keeps_its_first_scope() {
    let app = App::start().await;
    app.sign_in("alice").await;
    let code = app.code("alice", &[("scope", "write:repository")]).await;
    let tokens = tokens(app.exchange(&code, &[]).await);
    assert_eq!(app.forgejo.counters().requests_to("/login/oauth/grant"), 1);
    let (status, introspected) = introspect(&app, &tokens.access, &app.secret).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(introspected["scope"], SCOPE);
    assert_eq!(introspected["active"], true);
    assert_eq!(introspected["username"], "alice");
    assert!(introspected.get("exp").is_none());
}

#[tokio::test]
async fn introspection_challenges_only_an_unknown_client() {
    let app = App::start().await;
    let tokens = app.sign_in("alice").await;
    let introspect = async |secret: &str| {
        let request = app.post("/login/oauth/introspect").basic_auth(&app.id, Some(secret));
        let response = request.body(format!("token={}", tokens.access)).send().await.unwrap();
        (response.status(), response.headers().contains_key("www-authenticate"))
    };
    assert_eq!(introspect("wrong").await, (StatusCode::UNAUTHORIZED, true));
    assert_eq!(introspect(&app.secret).await, (StatusCode::OK, false));
    app.forgejo.revoke("alice");
    assert_eq!(introspect(&app.secret).await, (StatusCode::UNAUTHORIZED, false));
}

#[tokio::test]
async fn public_client_always_asks_and_fails_with_another_scope() {
    let app = App::start().await;
    let public = app.other(false);
    let browser = &mut Browser::new();
    let client = ("client_id", public.client_id.as_str());
    for consents in 1..=2 {
        let redirect = app.redirect(browser, "alice", &[client]).await;
        let code = parameter(&redirect, "code").unwrap();
        tokens(app.exchange(&code, &[client, ("client_secret", "")]).await);
        assert_eq!(app.forgejo.counters().requests_to("/login/oauth/grant"), consents);
    }
    let redirect = app.redirect(browser, "alice", &[client, ("scope", "read:user")]).await;
    assert_denied(&redirect, "server_error", "a grant exists with different scope");
}

#[tokio::test]
async fn public_client_needs_pkce() {
    let app = App::start().await;
    let public = app.other(false);
    let (challenge, method) = (("code_challenge", ""), ("code_challenge_method", ""));
    let extra = [("client_id", public.client_id.as_str()), challenge, method];
    let redirect = app.redirect(&mut Browser::new(), "alice", &extra).await;
    assert_denied(&redirect, "invalid_request", "PKCE is required for public clients");
}

#[tokio::test]
async fn errors_come_back_by_redirect_with_the_state() {
    let app = App::start().await;
    let browser = &mut Browser::new();
    let redirect = app.redirect(browser, "alice", &[("response_type", "token")]).await;
    let error = parameter(&redirect, "error");
    assert_eq!(error.as_deref(), Some("unsupported_response_type"));
    assert_eq!(parameter(&redirect, "state").as_deref(), Some("st4te"));
    let method = ("code_challenge_method", "S512");
    let redirect = app.redirect(browser, "alice", &[method]).await;
    assert_denied(&redirect, "invalid_request", "unsupported code challenge method");
    let url = app.authorize_url(&[]);
    let denied = browser.deny(&url, "alice", "alice-password", REDIRECT).await;
    assert_denied(&denied.unwrap(), "access_denied", "the request is denied");
}

#[tokio::test]
async fn empty_state_is_left_out_and_no_iss_is_added() {
    let app = App::start().await;
    let redirect = app.redirect(&mut Browser::new(), "alice", &[("state", "")]).await;
    let names: Vec<_> = redirect.query_pairs().map(|(name, _)| name).collect();
    assert_eq!(names, ["code"]);
}

#[tokio::test]
async fn unknown_client_or_redirect_uri_is_a_page_and_no_redirect() {
    let app = App::start().await;
    let mut browser = Browser::new();
    app.redirect(&mut browser, "alice", &[]).await;
    for extra in [("client_id", "unknown"), ("redirect_uri", "http://127.0.0.1:7/other")] {
        let page = browser.get(&app.authorize_url(&[extra])).await.unwrap();
        assert_eq!((page.status, page.redirect()), (StatusCode::BAD_REQUEST, None));
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    }
}

#[tokio::test]
async fn redirect_match_ignores_case_and_one_slash() {
    let app = App::start().await;
    let extra = [("redirect_uri", "http://127.0.0.1:7/CALLBACK/")];
    let redirect = app.redirect(&mut Browser::new(), "alice", &extra).await;
    assert_eq!(redirect.path(), "/CALLBACK/");
}

#[tokio::test]
async fn two_tabs_overwrite_each_other() {
    let app = App::start().await;
    let public = app.other(false);
    let client = ("client_id", public.client_id.as_str());
    let mut browser = Browser::new();
    app.redirect(&mut browser, "alice", &[client]).await;
    let first = browser
        .get(&app.authorize_url(&[client, ("state", "first")]))
        .await
        .unwrap();
    let second = browser
        .get(&app.authorize_url(&[client, ("state", "second")]))
        .await
        .unwrap();
    let granted = [("granted", "true")];
    let page = browser.submit(&first, &first.forms()[0], &granted).await.unwrap();
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    let page = browser.submit(&second, &second.forms()[0], &granted).await.unwrap();
    assert_eq!(parameter(&page.redirect().unwrap(), "state").as_deref(), Some("second"));
}

#[tokio::test]
async fn parameters_of_a_client_cannot_break_the_page() {
    let app = App::start().await;
    let hostile = "\"><script>alert('&')</script>";
    let redirect = app.redirect(&mut Browser::new(), "alice", &[("state", hostile)]).await;
    assert_eq!(parameter(&redirect, "state").as_deref(), Some(hostile));
}

async fn introspect(app: &App, token: &str, secret: &str) -> Answer {
    let request = app.post("/login/oauth/introspect").basic_auth(&app.id, Some(secret));
    let response = request.body(format!("token={token}")).send().await;
    answer(response.expect("an answer")).await
}
