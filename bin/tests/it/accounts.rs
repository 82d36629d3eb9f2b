//! Accounts over real HTTP: your connections, grants at Forgejo with another scope, users who are locked out, keys.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use testkit::{Browser, Client, browser::Page};
use url::Url;

use crate::{
    answers::initialize_until,
    harness::{Harness, login_of, open, password},
    sessions::until_children,
};

/// The harness's client, signed in with a browser that stays.
async fn signed_in_with(harness: &Harness, browser: &mut Browser) -> Client {
    let client = harness.client();
    client.sign_in(browser, "alice", &password("alice")).await.unwrap();
    client
}

/// The page of connections, after the sign-in for it. The browser is signed in at Forgejo.
async fn connections(harness: &Harness, browser: &mut Browser) -> Page {
    let url: Url = format!("{}/oauth/connections", harness.broker.url()).parse().unwrap();
    let page = browser.open(&url).await.unwrap();
    let to_forgejo = press(browser, &page, 0, ("action", "sign-in")).await;
    assert_eq!(page_after(browser, &to_forgejo).await.status, StatusCode::OK);
    browser.open(&url).await.unwrap()
}

async fn press(browser: &mut Browser, page: &Page, form: usize, button: (&str, &str)) -> Page {
    let form = &page.forms()[form];
    assert!(form.has_button(button.0, button.1), "{}", page.text());
    browser.submit(page, form, &[button]).await.unwrap()
}

async fn page_after(browser: &mut Browser, redirect: &Page) -> Page {
    browser.open(&redirect.redirect().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_user_sees_a_live_session_and_ends_it_with_its_child_at_once() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = signed_in_with(&harness, &mut browser).await;
    open(&client).await;
    let page = connections(&harness, &mut browser).await;
    assert!(page.body.contains("<dt>Sessions now</dt><dd>1</dd>"), "{}", page.body);
    assert!(page.body.contains("alice"));

    let ended = press(&mut browser, &page, 0, ("action", "end")).await;
    let after = page_after(&mut browser, &ended).await;
    assert!(after.body.contains("No application has access"), "{}", after.text());
    let (answer, _) = client.request("ping", Value::Null).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    until_children(&harness, 0).await;
}

#[tokio::test]
async fn a_client_that_signs_in_again_keeps_its_session() {
    let harness = Harness::new(&[]).await;
    let mut browser = Browser::new();
    let client = signed_in_with(&harness, &mut browser).await;
    open(&client).await;
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
async fn a_grant_at_forgejo_with_another_scope_is_told_and_can_be_mended() {
    let harness = Harness::new(&[]).await;
    harness.forgejo.access_token("alice", "read:user");
    let (client, mut browser) = (harness.client(), Browser::new());
    let refused = client.sign_in(&mut browser, "alice", &password("alice")).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Your permission must be renewed"), "{text}");
    // She does as the page says: the application goes from her settings.
    harness.forgejo.revoke("alice");
    client
        .authorize(&mut browser, "alice", &password("alice"))
        .await
        .unwrap();
    client.exchange().await.unwrap();
    open(&client).await;
    assert_eq!(login_of(&client).await, "alice");
}

#[tokio::test]
async fn a_user_who_is_locked_out_at_forgejo_is_out_at_the_next_renewal() {
    let harness = Harness::new(&[]).await;
    // Every token is renewed each time that one is asked for, and good for as long as a sign-in may take.
    harness.forgejo.set_advertised_lifetime(Duration::from_secs(1));
    let client = harness.signed_in("alice").await;
    harness.forgejo.disable("alice");
    initialize_until(&client, StatusCode::UNAUTHORIZED).await;
    let (id, refresh) = (client.client_id().unwrap(), client.refresh_token().unwrap());
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", id.as_str()),
        ("refresh_token", refresh.as_str()),
    ];
    let answer = client.token_request(&fields).await.unwrap();
    assert_eq!(
        (answer.status, answer.json()["error"].as_str()),
        (StatusCode::BAD_REQUEST, Some("invalid_grant"))
    );
    let (answer, _) = client.request("ping", Value::Null).await.unwrap();
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_key_is_rotated_in_its_file_and_a_missing_one_is_not_replaced() {
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
    open(&client).await;
    assert_eq!(login_of(&client).await, "alice");

    harness.broker.terminate().await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let refused = format!("{:#}", harness.broker.start_again().await.unwrap_err());
    assert!(refused.contains("put it back"), "{refused}");
    assert!(!path.exists(), "no other key takes its place");
    std::fs::write(&path, &second).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    harness.broker.start_again().await.unwrap();
    let again = client.another_session();
    open(&again).await;
    assert_eq!(login_of(&again).await, "alice");
}

#[tokio::test]
async fn a_key_may_come_from_the_environment() {
    let key = format!("1 {}", "3c".repeat(32));
    let mut harness = Harness::new(&[("store.key", &key)]).await;
    let client = harness.signed_in("alice").await;
    assert!(!harness.broker.directory().join("broker.key").exists());
    harness.broker.terminate().await.unwrap();
    harness.broker.start_again().await.unwrap();
    open(&client).await;
    assert_eq!(login_of(&client).await, "alice");
}
