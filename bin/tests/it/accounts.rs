//! Accounts over real HTTP: the page *Your connections*, grants at Forgejo with another scope,
//! disabled users, encryption keys.

use std::time::Duration;

use http::StatusCode;
use testkit::{Browser, Client, browser::Page};
use url::Url;

use crate::harness::{
    Harness, assert_unauthorized, login_of,
    messages::{initialize_until, refresh_form},
    open_session, password,
};

/// A client that is signed in with the given browser.
async fn sign_in_with_browser(harness: &Harness, browser: &mut Browser) -> Client {
    let client = harness.client();
    client.sign_in(browser, "alice", &password("alice")).await.unwrap();
    client
}

/// Opens *Your connections* and signs in there, with a browser that is signed in at Forgejo.
async fn open_connections_page(harness: &Harness, browser: &mut Browser) -> Page {
    let url: Url = format!("{}/oauth/connections", harness.broker.url()).parse().unwrap();
    let page = browser.open(&url).await.unwrap();
    let to_forgejo = submit(browser, &page, 0, ("action", "sign-in")).await;
    assert_eq!(follow(browser, &to_forgejo).await.status, StatusCode::OK);
    browser.open(&url).await.unwrap()
}

/// Submits a form of the page with one of its buttons.
async fn submit(browser: &mut Browser, page: &Page, form: usize, button: (&str, &str)) -> Page {
    let form = &page.forms()[form];
    assert!(form.has_button(button.0, button.1), "{}", page.text());
    browser.submit(page, form, &[button]).await.unwrap()
}

/// Follows a redirect.
async fn follow(browser: &mut Browser, redirect: &Page) -> Page {
    browser.open(&redirect.redirect().unwrap()).await.unwrap()
}

#[tokio::test]
async fn connections_page_shows_live_session_and_ends_it_with_its_child_at_once() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = sign_in_with_browser(&harness, &mut browser).await;
    open_session(&client).await;
    let page = open_connections_page(&harness, &mut browser).await;
    assert!(
        page.body.contains("<dt>Active sessions</dt><dd>1</dd>"),
        "{}",
        page.body
    );
    assert!(page.body.contains("alice"));

    let ended = submit(&mut browser, &page, 0, ("action", "end")).await;
    let after = follow(&mut browser, &ended).await;
    assert!(after.body.contains("No application has access"), "{}", after.text());
    assert_unauthorized(&client).await;
    harness.wait_for_children(0).await;
}

#[tokio::test]
async fn session_survives_a_second_sign_in_of_its_client() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = sign_in_with_browser(&harness, &mut browser).await;
    open_session(&client).await;
    let session = client.session_id();
    client
        .authorize(&mut browser, "alice", &password("alice"))
        .await
        .unwrap();
    client.exchange().await.unwrap();
    assert_eq!(client.session_id(), session);
    assert_eq!(login_of(&client).await, "alice");
}

#[tokio::test]
async fn forgejo_grant_with_another_scope_is_explained_and_can_be_replaced() {
    let harness = Harness::new(&[]).await;
    harness.forgejo.access_token("alice", "read:user");
    let (client, mut browser) = (harness.client(), Browser::new());
    let refused = client.sign_in(&mut browser, "alice", &password("alice")).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Your permission must be renewed"), "{text}");
    // As the page advises, she removes the application from her settings at Forgejo.
    harness.forgejo.revoke("alice");
    client
        .authorize(&mut browser, "alice", &password("alice"))
        .await
        .unwrap();
    client.exchange().await.unwrap();
    open_session(&client).await;
    assert_eq!(login_of(&client).await, "alice");
}

#[tokio::test]
async fn user_disabled_at_forgejo_is_signed_out_at_the_next_renewal() {
    let harness = Harness::new(&[]).await;
    // The broker renews such a token at each use. It stays valid longer, so that a slow sign-in
    // succeeds.
    harness.forgejo.set_advertised_lifetime(Duration::from_secs(1));
    let client = harness.signed_in("alice").await;
    harness.forgejo.disable("alice");
    initialize_until(&client, StatusCode::UNAUTHORIZED).await;
    let (id, refresh) = (client.client_id().unwrap(), client.refresh_token().unwrap());
    let answer = client.token_request(&refresh_form(&refresh, &id)).await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_grant"))
    );
    assert_unauthorized(&client).await;
}

#[tokio::test]
async fn key_is_rotated_in_its_file_and_a_missing_key_is_not_replaced() {
    let mut harness = Harness::new(&[]).await;
    let client = harness.signed_in("alice").await;
    let path = harness.broker.directory().join("broker.key");
    let first = std::fs::read_to_string(&path).unwrap();
    let second = format!("2 {}\n", "5a".repeat(32));

    harness.broker.terminate().await.unwrap();
    std::fs::write(&path, format!("{first}{second}")).unwrap();
    harness.broker.start_again().await.unwrap();
    assert!(
        harness
            .broker
            .log()
            .text()
            .contains("accounts sealed with the newest key")
    );

    harness.broker.terminate().await.unwrap();
    std::fs::write(&path, &second).unwrap();
    harness.broker.start_again().await.unwrap();
    open_session(&client).await;
    assert_eq!(login_of(&client).await, "alice");

    harness.broker.terminate().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let refused = format!("{:#}", harness.broker.start_again().await.unwrap_err());
    assert!(refused.contains("restore it"), "{refused}");
    assert!(!path.exists(), "the broker does not create another key");
    std::fs::write(&path, &second).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    harness.broker.start_again().await.unwrap();
    let again = client.another_session();
    open_session(&again).await;
    assert_eq!(login_of(&again).await, "alice");
}

#[tokio::test]
async fn key_can_come_from_the_environment() {
    let key = format!("1 {}", "3c".repeat(32));
    let mut harness = Harness::new(&[("store.key", &key)]).await;
    let client = harness.signed_in("alice").await;
    assert!(!harness.broker.directory().join("broker.key").exists());
    harness.restart().await;
    open_session(&client).await;
    assert_eq!(login_of(&client).await, "alice");
}

#[tokio::test]
async fn new_sign_in_moves_live_sessions_at_once() {
    let harness = Harness::new(&[
        ("session.rotate_interval", "100ms"),
        ("log.filter", "info,session=debug"),
    ])
    .await;
    let alice = harness.in_session("alice").await;
    let first = harness.only_child();
    harness.signed_in("alice").await;
    harness.broker.log().contains("session moved to a new backend").await;
    first.exited().await.unwrap();
    assert_eq!(login_of(&alice).await, "alice");
}
