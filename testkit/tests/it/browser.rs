//! The browser, straight at Forgejo.

use reqwest::{Method, StatusCode};
use testkit::{
    Browser,
    browser::{BrowserError, Cookie, SameSite},
};

use crate::support::{App, REDIRECT, parameter};

#[tokio::test]
async fn a_person_signs_in_consents_and_arrives() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let redirect = app.redirect(&mut browser, "alice", &[]).await;
    assert!(redirect.as_str().starts_with(REDIRECT));
    assert_eq!(parameter(&redirect, "state").as_deref(), Some("st4te"));
    let visits: Vec<(&Method, &str, u16)> = browser
        .visited()
        .iter()
        .map(|visit| (&visit.method, visit.url.path(), visit.status.as_u16()))
        .collect();
    let expected = [
        (&Method::GET, "/login/oauth/authorize", 303),
        (&Method::GET, "/user/login", 200),
        (&Method::POST, "/user/login", 303),
        (&Method::GET, "/login/oauth/authorize", 200),
        (&Method::POST, "/login/oauth/grant", 303),
    ];
    assert_eq!(visits, expected);
}

#[tokio::test]
async fn who_is_signed_in_and_has_consented_arrives_at_once() {
    let app = App::start().await;
    let mut browser = Browser::new();
    app.redirect(&mut browser, "alice", &[]).await;
    let before = browser.visited().len();
    app.redirect(&mut browser, "bob", &[]).await;
    assert_eq!(browser.visited().len(), before + 1);
    // The session was still alice's; without cookies bob has to sign in.
    browser.clear_cookies();
    app.redirect(&mut browser, "bob", &[]).await;
    assert_eq!(browser.visited().len(), before + 1 + 5);
}

#[tokio::test]
async fn a_wrong_password_is_told() {
    let app = App::start().await;
    let url = app.authorize_url(&[]);
    let refused = Browser::new()
        .authorize(&url, "alice", "wrong", REDIRECT)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, BrowserError::SignInRefused { text } if text.contains("incorrect")),
        "{refused}"
    );
}

#[tokio::test]
async fn a_page_without_a_way_on_is_quoted() {
    let app = App::start().await;
    let url = app.authorize_url(&[("client_id", "nobody")]);
    let stuck = Browser::new()
        .authorize(&url, "alice", "alice-password", REDIRECT)
        .await
        .unwrap_err();
    let BrowserError::Stuck { status, text, .. } = stuck else {
        panic!("{stuck}")
    };
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("Client ID not registered"));
}

#[tokio::test]
async fn redirects_are_followed_to_a_page_and_a_dead_address_is_told() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let page = browser.open(&app.authorize_url(&[])).await.unwrap();
    assert_eq!((page.url.path(), page.forms().len()), ("/user/login", 1));
    let dead = "http://127.0.0.1:1/".parse().unwrap();
    let unreachable = browser.get(&dead).await.unwrap_err();
    assert!(matches!(unreachable, BrowserError::Unreachable { .. }));
}

#[tokio::test]
async fn a_stolen_cookie_is_a_session() {
    let app = App::start().await;
    let mut alice = Browser::new();
    app.redirect(&mut alice, "alice", &[]).await;
    let session: Vec<Cookie> = alice.cookies().to_vec();
    assert_eq!(session.len(), 1);
    assert_eq!(
        (session[0].name.as_str(), session[0].same_site),
        ("session", SameSite::Lax)
    );
    let mut thief = Browser::new();
    thief.put_cookie(session[0].clone());
    assert!(thief.open(&app.url("/")).await.unwrap().text().contains("alice"));
    assert!(
        !Browser::new()
            .open(&app.url("/"))
            .await
            .unwrap()
            .text()
            .contains("alice")
    );
}
