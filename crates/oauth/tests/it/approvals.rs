//! Approvals that a browser remembers.

use std::time::Duration;

use http::StatusCode;

use oauth::ids::UserId;

use crate::{
    browser::{Browser, authorization},
    world::{ALICE, Answer, BOB, World, with},
};

const WEB: &str = "https://app.example/callback";
const COOKIE: &str = "__Host-fmb-approvals";

async fn web_client(world: &World) -> String {
    world.client_at("Web client", WEB).await
}

async fn authorize(world: &World, browser: &mut Browser, client: &str, changes: &[(&str, &str)]) -> Answer {
    let fields = authorization(client);
    let fields = with(&fields, &[("redirect_uri", WEB)]);
    let fields = with(&fields, changes);
    browser.authorize(world, &fields).await
}

/// Signs in through the consent page.
async fn approve(world: &World, browser: &mut Browser, client: &str, user: UserId) -> Answer {
    let page = authorize(world, browser, client, &[]).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let to_forgejo = browser.answer(world, &page, "approve").await;
    let back = browser.return_from(world, &to_forgejo, user).await;
    assert!(back.parameter("code").is_some(), "{back:?}");
    back
}

#[tokio::test]
async fn a_remembered_approval_skips_the_consent_page_but_not_the_sign_in() {
    let world = World::new().await;
    let client = web_client(&world).await;
    let mut browser = Browser::default();
    approve(&world, &mut browser, &client, ALICE).await;
    let to_forgejo = authorize(&world, &mut browser, &client, &[("state", "second")]).await;
    assert_eq!(to_forgejo.location().host_str(), Some("forgejo.example"));
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert!(back.parameter("code").is_some());
    assert_eq!(back.parameter("state").as_deref(), Some("second"));
    // The page is shown in another browser, for another client, after thirty days, and if the
    // client asks for it.
    assert_eq!(
        authorize(&world, &mut Browser::default(), &client, &[]).await.status,
        StatusCode::OK
    );
    let other = world.client_at("Other", WEB).await;
    assert_eq!(
        authorize(&world, &mut browser, &other, &[]).await.status,
        StatusCode::OK
    );
    let asked = authorize(&world, &mut browser, &client, &[("prompt", "consent")]).await;
    assert_eq!(asked.status, StatusCode::OK);
    world.clock.advance(Duration::from_secs(30 * 24 * 60 * 60));
    assert_eq!(
        authorize(&world, &mut browser, &client, &[]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_denial_is_not_remembered_and_does_not_revoke_an_approval() {
    let world = World::new().await;
    let client = web_client(&world).await;
    let mut browser = Browser::default();
    let page = authorize(&world, &mut browser, &client, &[]).await;
    browser.answer(&world, &page, "deny").await.location();
    assert!(browser.cookie(COOKIE).is_none());
    assert_eq!(
        authorize(&world, &mut browser, &client, &[]).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn an_approval_without_a_sign_in_is_not_remembered() {
    let world = World::new().await;
    let client = web_client(&world).await;
    let mut browser = Browser::default();
    let page = authorize(&world, &mut browser, &client, &[]).await;
    browser.answer(&world, &page, "approve").await.location();
    assert!(browser.cookie(COOKIE).is_none());
}

#[tokio::test]
async fn a_client_on_this_device_always_needs_consent() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    for _ in 0..2 {
        let page = browser.authorize(&world, &authorization(&client)).await;
        assert_eq!(page.status, StatusCode::OK);
        assert!(page.body.contains("a program on this device"), "{}", page.body);
        let to_forgejo = browser.answer(&world, &page, "approve").await;
        browser.return_from(&world, &to_forgejo, ALICE).await.location();
        assert!(browser.cookie(COOKIE).is_none());
    }
}

#[tokio::test]
async fn a_planted_approval_of_another_user_is_ignored() {
    let world = World::new().await;
    let client = web_client(&world).await;
    let mut attacker = Browser::default();
    approve(&world, &mut attacker, &client, BOB).await;
    let mut victim = Browser::default();
    victim.plant(COOKIE, attacker.cookie(COOKIE));
    let to_forgejo = authorize(&world, &mut victim, &client, &[]).await;
    // Alice signs in at Forgejo (or is signed in already): the page asks her, and the client gets
    // nothing.
    let back = victim.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(back.location().path(), "/oauth/authorize");
    assert!(back.parameter("code").is_none());
    let page = victim
        .open(
            &world,
            &format!("/oauth/authorize?{}", back.location().query().unwrap()),
        )
        .await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    let denied = victim.answer(&world, &page, "deny").await;
    assert_eq!(denied.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(denied.parameter("state").as_deref(), Some("xyz"));
}

#[tokio::test]
async fn ending_the_grant_ends_the_approval_in_all_browsers() {
    let world = World::new().await;
    let client = web_client(&world).await;
    let mut browser = Browser::default();
    let code = approve(&world, &mut browser, &client, ALICE)
        .await
        .parameter("code")
        .unwrap();
    let tokens = world.exchange_at(&client, &code, WEB).await.tokens();
    let revoked = world
        .form("/oauth/revoke", &[("client_id", &client), ("token", &tokens.refresh)])
        .await;
    assert_eq!(revoked.status, StatusCode::OK);
    let to_forgejo = authorize(&world, &mut browser, &client, &[]).await;
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(back.location().path(), "/oauth/authorize");
    assert_eq!(back.parameter("prompt").as_deref(), Some("consent"));
}

#[tokio::test]
async fn an_approval_survives_a_restart_and_a_key_rotation() {
    let mut world = World::new().await;
    let client = web_client(&world).await;
    let mut browser = Browser::default();
    approve(&world, &mut browser, &client, ALICE).await;
    world.restart([7; 32]).await;
    let to_forgejo = authorize(&world, &mut browser, &client, &[]).await;
    assert_eq!(to_forgejo.location().host_str(), Some("forgejo.example"));
    world.restart_with_keys(&[(1, [7; 32]), (2, [9; 32])]).await;
    let to_forgejo = authorize(&world, &mut browser, &client, &[]).await;
    assert_eq!(to_forgejo.location().host_str(), Some("forgejo.example"));
    world.restart([9; 32]).await;
    assert_eq!(
        authorize(&world, &mut browser, &client, &[]).await.status,
        StatusCode::OK
    );
}
