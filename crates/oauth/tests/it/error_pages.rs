//! The consent page, the callback, and the users who may sign in.

use std::time::Duration;

use http::{Request, StatusCode, header};
use oauth::{Config, ports::GrantedScope};

use crate::{
    browser::{Browser, authorization, hidden_fields},
    scripted_upstream::ScriptedFailure,
    world::{ALICE, BOB, ISSUER, REDIRECT, World, encode, form_request},
};

#[tokio::test]
async fn the_consent_page_names_client_destination_permissions_and_forgejo() {
    let world = World::new().await;
    let client = world.client().await;
    let page = Browser::default().authorize(&world, &authorization(&client)).await;
    for text in [
        "Test client",
        "127.0.0.1",
        REDIRECT,
        "read your account and profile",
        "forgejo.example",
        "The name is not verified",
    ] {
        assert!(page.body.contains(text), "{text}");
    }
    let policy = page.header(header::CONTENT_SECURITY_POLICY);
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(
        !policy.contains("unsafe") && !policy.contains("form-action") && !policy.contains("script"),
        "{policy}"
    );
    assert_eq!(page.header(header::X_FRAME_OPTIONS), "DENY");
    assert_eq!(page.header(header::CACHE_CONTROL), "no-store");
    let cookie = page.header(header::SET_COOKIE);
    assert!(
        cookie.starts_with("__Host-") && cookie.contains("HttpOnly") && cookie.contains("Secure"),
        "{cookie}"
    );
}

#[tokio::test]
async fn the_cookie_on_loopback_has_no_host_prefix() {
    let world = World::with(Config::new("http://127.0.0.1:8080")).await;
    let client = world.client().await;
    let page = Browser::default().authorize(&world, &authorization(&client)).await;
    let cookie = page.header(header::SET_COOKIE);
    assert!(
        cookie.starts_with("fmb-browser=") && !cookie.contains("Secure"),
        "{cookie}"
    );
    world.tokens(&client, ALICE).await;
}

#[tokio::test]
async fn html_in_client_metadata_is_escaped() {
    let world = World::new().await;
    let evil = "</h1><script>alert(1)</script>\"'&";
    let metadata = serde_json::json!({
        "client_name": evil,
        "redirect_uris": ["https://example.org/cb?x=\"><script>alert(2)</script>"],
        "token_endpoint_auth_method": "none",
    });
    let client = world.register(metadata).await.json()["client_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let fields = authorization(&client);
    let fields = crate::world::with(
        &fields,
        &[
            ("redirect_uri", "https://example.org/cb?x=\"><script>alert(2)</script>"),
            ("state", "\"><script>alert(3)</script>"),
        ],
    );
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &fields).await;
    assert_eq!(page.status, StatusCode::OK, "{page:?}");
    assert!(!page.body.contains("<script"), "{}", page.body);
    let state = hidden_fields(&page.body)
        .into_iter()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1;
    assert_eq!(state, "\"><script>alert(3)</script>");
    let denied = browser.answer(&world, &page, "deny").await;
    assert_eq!(
        denied.parameter("state").as_deref(),
        Some("\"><script>alert(3)</script>")
    );
}

#[tokio::test]
async fn a_name_without_visible_characters_is_shown_as_missing() {
    let world = World::new().await;
    for name in [
        "\u{3164}\u{3164}",
        "\u{2800}",
        "\u{115f}\u{34f}\u{fe0f}\u{e0100}",
        &"\u{301}".repeat(99),
    ] {
        let client = world.client_named(name).await;
        let page = Browser::default().authorize(&world, &authorization(&client)).await;
        assert!(
            page.body.contains("An application without a name"),
            "{name:?}: {}",
            page.body
        );
        assert!(!page.body.contains(name), "{name:?}");
    }
}

#[tokio::test]
async fn consent_is_for_the_name_that_the_page_has_shown() {
    let world = World::new().await;
    let metadata = |name| serde_json::json!({"client_name": name, "redirect_uris": [REDIRECT]});
    let registered = world.register(metadata("Notes")).await.json();
    let client = registered["client_id"].as_str().unwrap();
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &authorization(client)).await;
    let mut renamed = metadata("Forgejo administration");
    renamed["client_id"] = client.into();
    let token = registered["registration_access_token"].as_str().unwrap();
    let path = registered["registration_client_uri"].as_str().unwrap();
    let request = Request::put(path.strip_prefix(ISSUER).unwrap())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {token}"));
    let request = request.body(renamed.to_string().into()).unwrap();
    assert_eq!(world.send(request).await.status, StatusCode::OK);

    let again = browser.answer(&world, &page, "approve").await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert!(again.body.contains("Forgejo administration"), "{}", again.body);
    let approved = browser.answer(&world, &again, "approve").await;
    assert_eq!(approved.location().host_str(), Some("forgejo.example"));
}

#[tokio::test]
async fn client_gets_access_denied_when_the_user_declines() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    let page = browser.authorize(&world, &authorization(&client)).await;
    let denied = browser.answer(&world, &page, "deny").await;
    assert_eq!(denied.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(denied.parameter("state").as_deref(), Some("xyz"));
    assert_eq!(denied.parameter("iss").as_deref(), Some(ISSUER));
}

#[tokio::test]
async fn consent_is_bound_to_the_browser_and_the_request_of_the_page() {
    let world = World::new().await;
    let client = world.client().await;
    let mut victim = Browser::default();
    let page = victim.authorize(&world, &authorization(&client)).await;

    // Another browser, with its own cookie or none.
    let mut attacker = Browser::default();
    assert_eq!(
        attacker.answer(&world, &page, "approve").await.status,
        StatusCode::FORBIDDEN
    );
    attacker.authorize(&world, &authorization(&client)).await;
    assert_eq!(
        attacker.answer(&world, &page, "approve").await.status,
        StatusCode::FORBIDDEN
    );

    // The same browser with another request, without the CSRF token, or with a wrong one.
    let own = hidden_fields(&page.body);
    for (name, value) in [
        ("redirect_uri", "http://127.0.0.1:9/callback"),
        ("state", "other"),
        ("code_challenge", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("client_name", "Another name"),
        ("csrf", ""),
        ("csrf", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
    ] {
        let mut fields: Vec<(&str, &str)> = own.iter().map(|(key, value)| (&**key, &**value)).collect();
        fields.retain(|(key, _)| *key != name);
        fields.extend([(name, value), ("decision", "approve")]);
        let answer = victim.send(&world, form_request("/oauth/authorize", &fields)).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}={value}");
    }
    assert_eq!(
        victim.answer(&world, &page, "approve").await.status,
        StatusCode::SEE_OTHER
    );
}

#[tokio::test]
async fn the_consent_page_may_be_open_in_two_tabs() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    let first = browser.authorize(&world, &authorization(&client)).await;
    let second = browser.authorize(&world, &authorization(&client)).await;
    for page in [&first, &second] {
        let to_forgejo = browser.answer(&world, page, "approve").await;
        let back = browser.return_from(&world, &to_forgejo, ALICE).await;
        assert!(back.parameter("code").is_some());
    }
}

#[tokio::test]
async fn only_the_browser_that_consented_can_complete_the_sign_in() {
    let world = World::new().await;
    let client = world.client().await;
    let mut busy = Browser::default();
    busy.authorize(&world, &authorization(&client)).await;
    for mut victim in [Browser::default(), busy] {
        let mut attacker = Browser::default();
        let to_forgejo = attacker.approve(&world, &client).await;
        let answer = victim.return_from(&world, &to_forgejo, BOB).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
        assert!(!answer.headers.contains_key(header::LOCATION));
        // The sign-in stays pending for the browser that began it.
        let again = attacker.return_from(&world, &to_forgejo, BOB).await;
        assert!(again.parameter("code").is_some());
    }
}

#[tokio::test]
async fn a_state_is_valid_once_and_for_ten_minutes() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    browser
        .return_from(&world, &to_forgejo, ALICE)
        .await
        .parameter("code")
        .unwrap();
    let replay = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(replay.status, StatusCode::BAD_REQUEST);

    let to_forgejo = browser.approve(&world, &client).await;
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(
        browser.return_from(&world, &to_forgejo, ALICE).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        browser.open(&world, "/oauth/callback?code=x").await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        browser.open(&world, "/oauth/callback?code=x&state=y").await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn client_gets_the_error_when_forgejo_refuses() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    for (error, expected) in [("access_denied", "access_denied"), ("invalid_scope", "server_error")] {
        let to_forgejo = browser.approve(&world, &client).await;
        let state = to_forgejo.parameter("state").unwrap();
        let query = encode(&[("error", error), ("state", &state)]);
        let back = browser.open(&world, &format!("/oauth/callback?{query}")).await;
        assert_eq!(back.parameter("error").as_deref(), Some(expected));
        assert_eq!(back.parameter("state").as_deref(), Some("xyz"));
        assert_eq!(back.parameter("iss").as_deref(), Some(ISSUER));
    }
    for (failure, expected) in [
        (ScriptedFailure::Refused, "server_error"),
        (ScriptedFailure::Misconfigured, "server_error"),
        (ScriptedFailure::Unavailable, "temporarily_unavailable"),
    ] {
        let to_forgejo = browser.approve(&world, &client).await;
        world.upstream.set_failure(Some(failure));
        let back = browser.return_from(&world, &to_forgejo, ALICE).await;
        world.upstream.set_failure(None);
        assert_eq!(back.parameter("error").as_deref(), Some(expected), "{failure:?}");
    }
}

#[tokio::test]
async fn a_callback_without_a_code_tells_the_client_that_access_is_denied() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    for (query, expected) in [
        ("", "access_denied"),
        ("?", "access_denied"),
        ("?error=access_denied", "access_denied"),
        ("?error=access_denied&code=x", "access_denied"),
        ("?error=temporarily_unavailable", "server_error"),
        ("?error_description=x", "access_denied"),
    ] {
        let to_forgejo = browser.approve(&world, &client).await;
        let state = to_forgejo.parameter("state").unwrap();
        let bare = browser.open(&world, &format!("/oauth/callback{query}")).await;
        // The sign-in is still under way: any page could have led the browser there.
        let named = format!("/oauth/callback?state={state}&{}", query.trim_start_matches('?'));
        let named = browser.open(&world, &named).await;
        for back in [bare, named] {
            assert!(back.location().as_str().starts_with(REDIRECT), "{query}");
            assert_eq!(back.parameter("error").as_deref(), Some(expected), "{query}");
            assert_eq!(back.parameter("state").as_deref(), Some("xyz"), "{query}");
            assert_eq!(back.parameter("iss").as_deref(), Some(ISSUER), "{query}");
        }
    }
    let to_forgejo = browser.approve(&world, &client).await;
    browser.open(&world, "/oauth/callback").await.location();
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert!(back.parameter("code").is_some(), "{back:?}");
}

#[tokio::test]
async fn a_bare_callback_redirects_only_if_the_browser_has_exactly_one_sign_in() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    let page = async |browser: &mut Browser, query: &str, status| {
        let page = browser.open(&world, &format!("/oauth/callback{query}")).await;
        assert_eq!(page.status, status, "{page:?}");
        assert!(!page.headers.contains_key(header::LOCATION), "{page:?}");
    };
    // Without a cookie, before a sign-in, with two of them, and after they have expired.
    page(&mut browser, "", StatusCode::BAD_REQUEST).await;
    page(&mut browser, "?error=access_denied", StatusCode::FORBIDDEN).await;
    browser.authorize(&world, &authorization(&client)).await;
    page(&mut browser, "", StatusCode::BAD_REQUEST).await;
    browser.approve(&world, &client).await;
    page(&mut Browser::default(), "?error=access_denied", StatusCode::FORBIDDEN).await;
    browser.approve(&world, &client).await;
    page(&mut browser, "?error=access_denied", StatusCode::FORBIDDEN).await;
    world.clock.advance(Duration::from_secs(600));
    page(&mut browser, "", StatusCode::BAD_REQUEST).await;
    // A code without a state never counts for a sign-in.
    browser.approve(&world, &client).await;
    page(&mut browser, "?code=x", StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn a_user_locked_out_at_forgejo_is_refused_and_loses_all_grants() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.upstream.deactivate(ALICE);
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    let refused = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("alice"), "{}", refused.body);
    assert!(
        refused.body.contains("error=access_denied") && refused.body.contains("iss=https%3A%2F%2Fbroker.example"),
        "there is a way back to the client"
    );
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.events.take(), ["user 11"]);
}

#[tokio::test]
async fn only_listed_users_and_members_may_sign_in() {
    let mut config = Config::new(ISSUER);
    config.allowed_users = vec!["Alice".to_owned()];
    config.allowed_orgs = vec!["staff".to_owned()];
    let world = World::with(config).await;
    let client = world.client().await;
    world.tokens(&client, ALICE).await;

    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    let refused = browser.return_from(&world, &to_forgejo, BOB).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.body.contains("may not use this server"));

    world.upstream.add_member("staff", "bob");
    world.tokens(&client, BOB).await;
}

#[tokio::test]
async fn a_user_removed_from_the_allow_list_is_refused_after_a_restart() {
    let mut world = World::new().await;
    let client = world.client().await;
    let (alice, bob) = (world.tokens(&client, ALICE).await, world.tokens(&client, BOB).await);
    world.config.allowed_users = vec!["alice".to_owned()];
    world.restart([7; 32]).await;
    world.caller(&alice.access).await;
    assert_eq!(
        world.authenticate(&bob.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(
        world.refresh(&client, &bob.refresh).await.error(),
        (400, "invalid_grant".to_owned())
    );
}

#[tokio::test]
async fn a_grant_at_forgejo_with_another_scope_shows_a_page_with_instructions() {
    let world = World::new().await;
    let client = world.client().await;
    let earlier = world.tokens(&client, ALICE).await;
    world
        .upstream
        .set_granted_scope(GrantedScope::Other(vec!["read packages".to_owned()]));
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    let page = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{page:?}");
    for text in [
        "read packages",
        "href=\"https://forgejo.example/user/settings/applications\"",
        "/oauth/authorize?",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
    // Existing grants keep working, with the tokens of this sign-in.
    let account = world.caller(&earlier.access).await.account();
    account.refresh().await.unwrap();
    // After the user has removed the application at Forgejo, the link of the page completes the
    // sign-in.
    world.upstream.set_granted_scope(GrantedScope::AsRequested);
    let link = page.body.split("href=\"").nth(2).unwrap();
    let link = link[..link.find('"').unwrap()].replace("&#38;", "&");
    let again = browser.open(&world, link.strip_prefix(ISSUER).unwrap()).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    let to_forgejo = browser.answer(&world, &again, "approve").await;
    let back = browser.return_from(&world, &to_forgejo, ALICE).await;
    assert!(back.parameter("code").is_some());
    assert_eq!(back.parameter("state").as_deref(), Some("xyz"));
}

#[tokio::test]
async fn a_forgejo_that_does_not_report_the_scope_is_trusted() {
    let world = World::new().await;
    let client = world.client().await;
    world.upstream.set_granted_scope(GrantedScope::Unknown);
    world.tokens(&client, ALICE).await;
}

#[tokio::test]
async fn unknown_scopes_are_ignored_and_malformed_scopes_refused() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    for (scope, shown) in [("openid profile", true), ("mcp", true), ("a\"b", false)] {
        let fields = authorization(&client);
        let fields = crate::world::with(&fields, &[("scope", scope)]);
        let answer = browser.authorize(&world, &fields).await;
        if shown {
            assert_eq!(answer.status, StatusCode::OK);
            let fields = hidden_fields(&answer.body);
            assert!(fields.contains(&("scope".to_owned(), "mcp".to_owned())), "{fields:?}");
        } else {
            assert_eq!(answer.parameter("error").as_deref(), Some("invalid_scope"));
            assert_eq!(answer.parameter("iss").as_deref(), Some(ISSUER));
        }
    }
}

#[tokio::test]
async fn an_error_does_not_redirect_to_an_untrusted_address() {
    let world = World::new().await;
    let client = world.client_at("Elsewhere", "https://elsewhere.example/cb").await;
    let fields = authorization(&client);
    let fields = crate::world::with(
        &fields,
        &[
            ("redirect_uri", "https://elsewhere.example/cb"),
            ("response_type", "token"),
        ],
    );
    let page = Browser::default().authorize(&world, &fields).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    assert!(!page.headers.contains_key(header::LOCATION));
    for text in [
        "https://elsewhere.example/cb?error=unsupported_response_type",
        "state=xyz",
        "iss=https%3A%2F%2Fbroker.example",
    ] {
        assert!(page.body.contains(text), "{text}: {}", page.body);
    }
}

#[tokio::test]
async fn the_consent_page_warns_of_clients_on_this_device_only() {
    let world = World::new().await;
    for (uri, warned) in [
        ("http://127.0.0.1:4711/callback", true),
        ("cursor://anysphere.cursor-mcp/oauth/callback", true),
        ("https://app.example/callback", false),
    ] {
        let client = world.client_at("Any", uri).await;
        let fields = authorization(&client);
        let fields = crate::world::with(&fields, &[("redirect_uri", uri)]);
        let page = Browser::default().authorize(&world, &fields).await;
        assert_eq!(page.status, StatusCode::OK, "{page:?}");
        assert_eq!(page.body.contains("a program on this device"), warned, "{uri}");
    }
}

#[tokio::test]
async fn a_user_locked_out_during_the_sign_in_sees_a_page() {
    let world = World::new().await;
    let client = world.client().await;
    let mut browser = Browser::default();
    let to_forgejo = browser.approve(&world, &client).await;
    // The scripted upstream does not know this user, and refuses to tell who it is.
    let back = browser.return_from(&world, &to_forgejo, oauth::ids::UserId(99)).await;
    assert_eq!(back.status, StatusCode::FORBIDDEN, "{back:?}");
    assert!(back.body.contains("locked this account") && back.body.contains("error=access_denied"));
}
