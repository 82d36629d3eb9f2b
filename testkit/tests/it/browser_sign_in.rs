//! The browser at Forgejo's sign-in.

use reqwest::{Method, StatusCode};
use testkit::{Browser, browser::BrowserError};

use crate::application::{App, REDIRECT, parameter};

#[tokio::test]
async fn user_signs_in_consents_and_arrives() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let redirect = app.redirect(&mut browser, "alice", &[]).await;
    assert!(redirect.as_str().starts_with(REDIRECT));
    assert_eq!(parameter(&redirect, "state").as_deref(), Some("st4te"));
    let visits = browser.visited().iter();
    let visits: Vec<_> = visits
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
async fn signed_in_user_with_a_grant_arrives_at_once() {
    let app = App::start().await;
    let mut browser = Browser::new();
    app.redirect(&mut browser, "alice", &[]).await;
    let before = browser.visited().len();
    app.redirect(&mut browser, "bob", &[]).await;
    assert_eq!(browser.visited().len(), before + 1);
    // The session was still alice's; in another browser bob has to sign in.
    let mut other = Browser::new();
    app.redirect(&mut other, "bob", &[]).await;
    assert_eq!(other.visited().len(), 5);
}

#[tokio::test]
async fn wrong_password_is_an_error() {
    let app = App::start().await;
    let (mut browser, url) = (Browser::new(), app.authorize_url(&[]));
    let refused = browser.authorize(&url, "alice", "wrong", REDIRECT).await.unwrap_err();
    let expected = matches!(&refused, BrowserError::SignInRefused { text } if text.contains("incorrect"));
    assert!(expected, "{refused}");
}

#[tokio::test]
async fn page_without_a_known_form_is_quoted() {
    let app = App::start().await;
    let (mut browser, url) = (Browser::new(), app.authorize_url(&[("client_id", "unknown")]));
    let stuck = browser.authorize(&url, "alice", "alice-password", REDIRECT).await;
    let Err(BrowserError::Stuck { status, text, .. }) = stuck else {
        panic!("{stuck:?}")
    };
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(text.contains("Client ID not registered"));
}

#[tokio::test]
async fn redirects_are_followed_to_a_page_and_a_dead_address_is_an_error() {
    let app = App::start().await;
    let mut browser = Browser::new();
    let page = browser.open(&app.authorize_url(&[])).await.unwrap();
    assert_eq!((page.url.path(), page.forms().len()), ("/user/login", 1));
    let unreachable = browser.get(&"http://127.0.0.1:1/".parse().unwrap()).await;
    assert!(matches!(unreachable, Err(BrowserError::Unreachable { .. })));
}
