//! *Your connections*: the grants that a user sees and can end.

use std::time::Duration;

use http::{StatusCode, header};
use oauth::{Config, ids::UserId};

use crate::{
    browser::{Browser, hidden_fields},
    scripted_upstream::ScriptedFailure,
    world::{ALICE, Answer, BOB, ISSUER, World, form_request},
};

const PATH: &str = "/oauth/connections";

/// Signs in for the page, and opens it.
async fn signed_in(world: &World, browser: &mut Browser, user: UserId) -> Answer {
    let page = browser.open(world, PATH).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert!(page.body.contains("Sign in at forgejo.example"), "{}", page.body);
    let to_forgejo = act(world, browser, &page, "sign-in", None).await;
    assert_eq!(to_forgejo.location().host_str(), Some("forgejo.example"));
    let back = browser.return_from(world, &to_forgejo, user).await;
    assert_eq!(back.location().as_str(), format!("{ISSUER}{PATH}"));
    browser.open(world, PATH).await
}

/// Presses a button of the page.
async fn act(world: &World, browser: &mut Browser, page: &Answer, action: &str, grant: Option<&str>) -> Answer {
    let csrf = hidden_fields(&page.body)
        .into_iter()
        .find(|(name, _)| name == "csrf")
        .unwrap()
        .1;
    let mut fields = vec![("csrf", csrf.as_str()), ("action", action)];
    fields.extend(grant.map(|grant| ("grant", grant)));
    browser.send(world, form_request(PATH, &fields)).await
}

fn grants(page: &Answer) -> Vec<String> {
    hidden_fields(&page.body)
        .into_iter()
        .filter(|(name, _)| name == "grant")
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn a_user_sees_their_connections_and_ends_one() {
    let world = World::new().await;
    let (one, two) = (world.client().await, world.client_named("Second <b>client").await);
    let first = world.tokens(&one, ALICE).await;
    world.clock.advance(Duration::from_secs(3600));
    let second = world.tokens(&two, ALICE).await;
    let other = world.tokens(&one, BOB).await;
    let grant = world.caller(&first.access).await.grant().to_owned();
    world.events.set_sessions(&grant, 3);

    let mut browser = Browser::default();
    let page = signed_in(&world, &mut browser, ALICE).await;
    for text in [
        "alice",
        "forgejo.example",
        "Test client",
        "Second &#60;b&#62;client",
        "2027-01-15, 08:00 UTC",
        "2027-01-15, 09:00 UTC",
        "<dd>3</dd>",
        "https://forgejo.example/user/settings/applications",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    let shown = grants(&page);
    assert_eq!(shown.len(), 2);
    assert!(shown.contains(&grant.0));

    let ended = act(&world, &mut browser, &page, "end", Some(&grant.0)).await;
    assert_eq!(ended.location().as_str(), format!("{ISSUER}{PATH}?ended"));
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
    assert_eq!(
        world.authenticate(&first.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        world.refresh(&one, &first.refresh).await.error(),
        (400, "invalid_grant".to_owned())
    );
    // Other grants are not affected, and a second click does nothing.
    world.caller(&second.access).await;
    world.caller(&other.access).await;
    act(&world, &mut browser, &page, "end", Some(&grant.0)).await.location();
    assert!(world.events.take().is_empty());
    let page = browser.open(&world, &format!("{PATH}?ended")).await;
    assert!(page.body.contains("The access has ended"));
    assert_eq!(grants(&page).len(), 1);
}

#[tokio::test]
async fn a_user_cannot_end_the_grant_of_another() {
    let world = World::new().await;
    let client = world.client().await;
    let alice = world.tokens(&client, ALICE).await;
    let grant = world.caller(&alice.access).await.grant().to_owned();
    let mut browser = Browser::default();
    let page = signed_in(&world, &mut browser, BOB).await;
    assert!(!page.body.contains(&grant.0) && page.body.contains("No application has access"));
    act(&world, &mut browser, &page, "end", Some(&grant.0)).await.location();
    world.caller(&alice.access).await;
    act(&world, &mut browser, &page, "end-all", None).await.location();
    world.caller(&alice.access).await;
    assert_eq!(world.events.take(), ["user 12"]);
}

#[tokio::test]
async fn all_connections_can_be_ended_at_once() {
    let world = World::new().await;
    let (one, two) = (world.client().await, world.client_named("Second").await);
    let tokens = [world.tokens(&one, ALICE).await, world.tokens(&two, ALICE).await];
    let mut browser = Browser::default();
    let page = signed_in(&world, &mut browser, ALICE).await;
    act(&world, &mut browser, &page, "end-all", None).await.location();
    for tokens in tokens {
        assert_eq!(
            world.authenticate(&tokens.access).await.unwrap_err().status,
            StatusCode::UNAUTHORIZED
        );
    }
    let page = browser.open(&world, PATH).await;
    assert!(page.body.contains("No application has access"), "{}", page.body);
}

#[tokio::test]
async fn the_sign_in_for_the_page_keeps_existing_grants_alive() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    // The exchange invalidates the refresh token of the first sign-in.
    signed_in(&world, &mut Browser::default(), ALICE).await;
    world.clock.advance(Duration::from_secs(3600));
    let account = world.caller(&tokens.access).await.account();
    account.valid_token().await.unwrap();
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn a_form_is_valid_only_in_its_browser_and_session() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let mut browser = Browser::default();
    let before = browser.open(&world, PATH).await;
    let page = signed_in(&world, &mut browser, ALICE).await;
    let grant = grants(&page).remove(0);

    // The CSRF token is missing in a form of another site, wrong in one of another browser, and
    // outdated in one from before the sign-in.
    let fields = [("action", "end"), ("grant", grant.as_str())];
    let forged = browser.send(&world, form_request(PATH, &fields)).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    let mut attacker = Browser::default();
    let theirs = signed_in(&world, &mut attacker, BOB).await;
    for wrong in [&theirs, &before] {
        let answer = act(&world, &mut browser, wrong, "end", Some(&grant)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
    }
    // The cookie of a session is not valid in another browser.
    attacker.plant("__Host-fmb-connections", browser.cookie("__Host-fmb-connections"));
    assert!(attacker.open(&world, PATH).await.body.contains("Sign in at"));
    world.caller(&tokens.access).await;
}

#[tokio::test]
async fn a_session_ends_by_expiry_and_by_signing_out() {
    let world = World::new().await;
    let mut browser = Browser::default();
    let page = signed_in(&world, &mut browser, ALICE).await;
    let mut left_open = browser.clone();
    act(&world, &mut browser, &page, "sign-out", None).await.location();
    assert!(browser.cookie("__Host-fmb-connections").is_none());
    assert!(browser.open(&world, PATH).await.body.contains("Sign in at"));

    assert!(left_open.open(&world, PATH).await.body.contains("alice"));
    world.clock.advance(Duration::from_secs(15 * 60));
    assert!(left_open.open(&world, PATH).await.body.contains("Sign in at"));
}

#[tokio::test]
async fn the_page_has_the_security_policy_and_an_http_only_cookie() {
    let world = World::new().await;
    let mut browser = Browser::default();
    let page = browser.open(&world, PATH).await;
    let to_forgejo = act(&world, &mut browser, &page, "sign-in", None).await;
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    let cookie = back.header(header::SET_COOKIE);
    assert!(
        cookie.starts_with("__Host-fmb-connections=")
            && cookie.contains("; HttpOnly; SameSite=Lax; Secure")
            && cookie.contains("; Max-Age=900;"),
        "{cookie}"
    );
    let page = browser.open(&world, PATH).await;
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("frame-ancestors 'none'")
            && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.header(header::CACHE_CONTROL), "no-store");
}

#[tokio::test]
async fn a_user_who_is_not_allowed_sees_no_connections() {
    let mut config = Config::new(ISSUER);
    config.allowed_users = vec!["alice".to_owned()];
    let world = World::with(config).await;
    let mut browser = Browser::default();
    let page = browser.open(&world, PATH).await;
    let to_forgejo = act(&world, &mut browser, &page, "sign-in", None).await;
    let refused = browser.return_from(&world, &to_forgejo, BOB).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("bob") && !refused.body.contains("Return to the application"));
}

#[tokio::test]
async fn an_error_at_forgejo_is_shown_on_a_page() {
    let world = World::new().await;
    let mut browser = Browser::default();
    for (trouble, status) in [
        (ScriptedFailure::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (ScriptedFailure::Misconfigured, StatusCode::FORBIDDEN),
    ] {
        let page = browser.open(&world, PATH).await;
        let to_forgejo = act(&world, &mut browser, &page, "sign-in", None).await;
        world.upstream.set_failure(Some(trouble));
        let back = browser.return_from(&world, &to_forgejo, ALICE).await;
        world.upstream.set_failure(None);
        assert_eq!(back.status, status, "{trouble:?}");
    }
}
