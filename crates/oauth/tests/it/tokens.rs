//! Codes, rotation, reuse, revocation.

use std::time::Duration;

use http::StatusCode;
use oauth::Config;

use crate::{
    browser::{Browser, authorization},
    scripted_upstream::ScriptedFailure,
    world::{ALICE, BOB, ISSUER, World, code_form, with},
};

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

#[tokio::test]
async fn a_token_request_may_leave_out_the_redirect_uri_but_not_the_verifier() {
    let world = World::new().await;
    let client = world.client().await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let form = code_form(&client, &code);
    let form = with(&form, &[("redirect_uri", "")]);
    let other = world.client_named("Other").await;
    for (changes, error) in [
        (&[("code_verifier", "")][..], "invalid_request"),
        (&[("code_verifier", crate::world::CHALLENGE)], "invalid_grant"),
        (&[("client_id", other.as_str())], "invalid_grant"),
    ] {
        let refused = world.form("/oauth/token", &with(&form, changes)).await;
        assert_eq!(refused.error(), (400, error.to_owned()), "{changes:?}");
    }
    world.form("/oauth/token", &form).await.tokens();
}

#[tokio::test]
async fn a_code_is_bound_to_client_redirect_uri_and_verifier() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client_named("Other").await);
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let form = code_form(&client, &code);
    for change in [
        ("client_id", other.as_str()),
        ("redirect_uri", "http://127.0.0.1:4712/callback"),
        ("code_verifier", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("code_verifier", crate::world::CHALLENGE),
        ("code", "fmb_code_nonsense"),
    ] {
        let answer = world.form("/oauth/token", &with(&form, &[change])).await;
        assert_eq!(answer.error(), invalid_grant(), "{change:?}");
    }
    for missing in ["code", "code_verifier", "grant_type"] {
        let answer = world.form("/oauth/token", &with(&form, &[(missing, "")])).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()), "{missing}");
    }
    world.form("/oauth/token", &form).await.tokens();
}

#[tokio::test]
async fn a_code_expires() {
    let world = World::new().await;
    let client = world.client().await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.exchange(&client, &code).await.error(), invalid_grant());
}

#[tokio::test]
async fn a_code_used_twice_ends_its_grant_and_no_other() {
    let world = World::new().await;
    let client = world.client().await;
    let other = world.client_named("Other").await;
    let bystanders = [world.tokens(&client, BOB).await, world.tokens(&other, ALICE).await];
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let tokens = world.exchange(&client, &code).await.tokens();
    let grant = world.caller(&tokens.access).await.grant().to_owned();
    // At any time later.
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(world.exchange(&client, &code).await.error(), invalid_grant());
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.refresh(&client, &tokens.refresh).await.error(), invalid_grant());
    for bystander in bystanders {
        world.caller(&bystander.access).await;
    }
}

#[tokio::test]
async fn a_code_used_twice_does_not_affect_the_tokens_of_other_sign_ins() {
    let world = World::new().await;
    let client = world.client().await;
    let earlier = world.tokens(&client, ALICE).await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let tokens = world.exchange(&client, &code).await.tokens();
    world.caller(&tokens.access).await;
    assert_eq!(world.exchange(&client, &code).await.error(), invalid_grant());
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.refresh(&client, &tokens.refresh).await.error(), invalid_grant());
    world.caller(&earlier.access).await;
    world.refresh(&client, &earlier.refresh).await.tokens();
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn a_second_sign_in_of_a_client_keeps_its_grant() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let rotated = world.refresh(&client, &first.refresh).await.tokens();
    let second = world.tokens(&client, ALICE).await;
    let grant = world.caller(&first.access).await.grant().to_owned();
    assert_eq!(world.caller(&second.access).await.grant(), &grant);
    // Each sign-in has its own family: the other's tokens do not count as reuse.
    let third = world.refresh(&client, &second.refresh).await.tokens();
    let rotated = world.refresh(&client, &rotated.refresh).await.tokens();
    world.refresh(&client, &third.refresh).await.tokens();
    assert!(world.events.take().is_empty());
    // Reuse in one of them ends that one, and the grant goes on with the other.
    let newest = world.refresh(&client, &rotated.refresh).await.tokens();
    assert_eq!(world.refresh(&client, &first.refresh).await.error(), invalid_grant());
    assert_eq!(world.refresh(&client, &newest.refresh).await.error(), invalid_grant());
    assert!(world.events.take().is_empty());
    let fourth = world.refresh(&client, &third.refresh).await.tokens();
    world.refresh(&client, &fourth.refresh).await.tokens();
    assert_eq!(world.refresh(&client, &second.refresh).await.error(), invalid_grant());
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
    // The next sign-in makes a new grant.
    let anew = world.tokens(&client, ALICE).await;
    assert_ne!(world.caller(&anew.access).await.grant(), &grant);
}

#[tokio::test]
async fn a_grant_has_a_limited_number_of_token_families() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let mut others = Vec::new();
    for _ in 0..16 {
        world.clock.advance(Duration::from_secs(1));
        others.push(world.tokens(&client, ALICE).await);
    }
    assert_eq!(world.refresh(&client, &first.refresh).await.error(), invalid_grant());
    for tokens in others {
        world.refresh(&client, &tokens.refresh).await.tokens();
    }
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn two_concurrent_exchanges_of_a_code_end_its_grant() {
    let world = World::new().await;
    let client = world.client().await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let (a, b) = tokio::join!(world.exchange(&client, &code), world.exchange(&client, &code));
    let good = [&a, &b]
        .into_iter()
        .filter(|answer| answer.status == StatusCode::OK)
        .count();
    assert_eq!(good, 1, "{a:?} {b:?}");
    assert_eq!(world.events.take().len(), 1);
}

#[tokio::test]
async fn a_refresh_issues_new_tokens_of_the_same_grant() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    assert_ne!(first.access, second.access);
    assert_ne!(first.refresh, second.refresh);
    assert_eq!(
        world.caller(&first.access).await.grant(),
        world.caller(&second.access).await.grant()
    );
}

#[tokio::test]
async fn concurrent_refreshes_get_the_same_successor() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let refresh = || world.refresh(&client, &first.refresh);
    let (a, b, c, d, e, f) = tokio::join!(refresh(), refresh(), refresh(), refresh(), refresh(), refresh());
    let tokens: Vec<_> = [a, b, c, d, e, f].iter().map(crate::world::Answer::tokens).collect();
    for token in &tokens {
        world.caller(&token.access).await;
        assert_eq!(token.refresh, tokens[0].refresh);
    }
    world.refresh(&client, &tokens[0].refresh).await.tokens();
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn a_predecessor_is_valid_until_its_successor_is_used() {
    let mut world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    // The response was lost; the client returns much later, after a restart.
    world.clock.advance(Duration::from_secs(59 * 60));
    world.restart([7; 32]).await;
    let again = world.refresh(&client, &first.refresh).await.tokens();
    assert_eq!(again.refresh, second.refresh, "the same successor");
    world.caller(&again.access).await;

    // The use of the successor makes it the predecessor, and the first token an ancestor.
    let third = world.refresh(&client, &second.refresh).await.tokens();
    assert_eq!(
        world.refresh(&client, &second.refresh).await.tokens().refresh,
        third.refresh
    );
    let grant = world.caller(&third.access).await.grant().to_owned();
    assert_eq!(world.refresh(&client, &first.refresh).await.error(), invalid_grant());
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
    assert_eq!(world.refresh(&client, &third.refresh).await.error(), invalid_grant());
    assert_eq!(
        world.authenticate(&third.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_predecessor_is_valid_within_its_grace() {
    let mut config = Config::new(ISSUER);
    config.refresh_grace = Some(Duration::from_secs(60));
    let world = World::with(config).await;
    let client = world.client().await;
    let other = world.tokens(&client, ALICE).await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    world.clock.advance(Duration::from_secs(40));
    world.refresh(&client, &first.refresh).await.tokens();
    // The grace counts from the issue of the successor, however often it is issued again.
    world.clock.advance(Duration::from_secs(21));
    assert_eq!(world.refresh(&client, &first.refresh).await.error(), invalid_grant());
    assert_eq!(world.refresh(&client, &second.refresh).await.error(), invalid_grant());
    world.refresh(&client, &other.refresh).await.tokens();
    assert!(world.events.take().is_empty());
}

#[tokio::test]
async fn a_predecessor_stays_valid_after_a_key_rotation() {
    let mut world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    world.restart_with_keys(&[(1, [7; 32]), (2, [8; 32])]).await;
    let again = world.refresh(&client, &first.refresh).await.tokens();
    assert_ne!(again.refresh, second.refresh);
    // Both successors of one generation are valid.
    world.refresh(&client, &again.refresh).await.tokens();
    world.refresh(&client, &second.refresh).await.tokens();
}

#[tokio::test]
async fn a_refresh_token_is_bound_to_its_client_and_expires() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client_named("Other").await);
    let tokens = world.tokens(&client, ALICE).await;
    assert_eq!(world.refresh(&other, &tokens.refresh).await.error(), invalid_grant());
    assert_eq!(world.refresh(&client, &tokens.access).await.error(), invalid_grant());
    assert_eq!(world.refresh(&client, "fmb_rt_nonsense").await.error(), invalid_grant());
    world.clock.advance(Duration::from_secs(29 * 24 * 3600));
    let next = world.refresh(&client, &tokens.refresh).await.tokens();
    world.clock.advance(Duration::from_secs(29 * 24 * 3600));
    let next = world.refresh(&client, &next.refresh).await.tokens();
    world.clock.advance(Duration::from_secs(30 * 24 * 3600));
    assert_eq!(world.refresh(&client, &next.refresh).await.error(), invalid_grant());
}

#[tokio::test]
async fn a_refresh_may_request_the_scope_of_the_grant_and_no_more() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", tokens.refresh.as_str()),
    ];
    for scope in ["mcp  mcp", "\"", " mcp"] {
        let answer = world.form("/oauth/token", &with(&fields, &[("scope", scope)])).await;
        assert_eq!(answer.error(), (400, "invalid_scope".to_owned()), "{scope}");
    }
    // The refused requests did not use up the token.
    let answer = world.form("/oauth/token", &with(&fields, &[("scope", "mcp")])).await;
    assert_eq!(answer.json()["scope"], "mcp");
}

#[tokio::test]
async fn offline_access_and_unknown_scopes_are_ignored_from_sign_in_to_refresh() {
    let world = World::new().await;
    let client = world.client().await;
    for scope in [
        "mcp offline_access",
        "offline_access",
        "openid mcp offline_access admin",
    ] {
        let fields = [&authorization(&client)[..], &[("scope", scope)]].concat();
        let mut browser = Browser::default();
        let page = browser.authorize(&world, &fields).await;
        let to_forgejo = browser.answer(&world, &page, "approve").await;
        let back = browser.return_from(&world, &to_forgejo, ALICE).await;
        let code = back.parameter("code").unwrap();
        // Clients may repeat the scope at the token endpoint.
        let form = [&code_form(&client, &code)[..], &[("scope", scope)]].concat();
        let mut answer = world.form("/oauth/token", &form).await;
        for _ in 0..2 {
            // RFC 6749 section 3.3: the response names the scope, which is not the requested one.
            assert_eq!(answer.json()["scope"], "mcp", "{scope}");
            let tokens = answer.tokens();
            world.caller(&tokens.access).await;
            let refresh = [
                ("grant_type", "refresh_token"),
                ("client_id", client.as_str()),
                ("refresh_token", tokens.refresh.as_str()),
                ("scope", scope),
            ];
            answer = world.form("/oauth/token", &refresh).await;
        }
    }
}

#[tokio::test]
async fn a_grant_without_the_scope_gets_an_insufficient_scope_challenge() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    sqlx::query("UPDATE oauth_grants SET scope = 'other'")
        .execute(world.store.writer())
        .await
        .unwrap();
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", client.as_str()),
        ("refresh_token", tokens.refresh.as_str()),
        ("scope", "mcp"),
    ];
    let refused = world.form("/oauth/token", &fields).await;
    assert_eq!(refused.error(), (400, "invalid_scope".to_owned()));
    let denied = world.authenticate(&tokens.access).await.unwrap_err();
    assert_eq!(denied.error(), (403, "insufficient_scope".to_owned()));
    let challenge = denied.header(http::header::WWW_AUTHENTICATE);
    for part in [
        "error=\"insufficient_scope\"",
        "scope=\"mcp\"",
        "resource_metadata=\"https://broker.example/.well-known/oauth-protected-resource/mcp\"",
    ] {
        assert!(challenge.contains(part), "{challenge}");
    }
    assert!(!challenge.contains("offline_access"), "{challenge}");
    // The client signs in again with the scope and keeps its grant.
    let stepped_up = world.tokens(&client, ALICE).await;
    let caller = world.caller(&stepped_up.access).await;
    assert_eq!(world.caller(&tokens.access).await.grant(), caller.grant());
}

#[tokio::test]
async fn a_refresh_requires_an_account() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.clock.advance(Duration::from_secs(3600));
    for trouble in [ScriptedFailure::Unavailable, ScriptedFailure::Misconfigured] {
        world.upstream.set_failure(Some(trouble));
        let answer = world.refresh(&client, &tokens.refresh).await;
        assert_eq!(
            answer.error(),
            (503, "temporarily_unavailable".to_owned()),
            "{trouble:?}"
        );
        assert_eq!(answer.header(http::header::RETRY_AFTER), "5");
        world.clock.advance(Duration::from_secs(5));
    }
    world.upstream.set_failure(None);
    // The token is still valid, and no grant has ended.
    let tokens = world.refresh(&client, &tokens.refresh).await.tokens();
    world.clock.advance(Duration::from_secs(3600));
    world.upstream.set_failure(Some(ScriptedFailure::Refused));
    assert_eq!(world.refresh(&client, &tokens.refresh).await.error(), invalid_grant());
    assert_eq!(world.events.take(), ["user 11"]);
}

#[tokio::test]
async fn a_grant_has_a_limited_number_of_access_tokens() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let mut last = first.clone();
    for _ in 0..64 {
        world.clock.advance(Duration::from_secs(1));
        last = world.refresh(&client, &last.refresh).await.tokens();
    }
    world.caller(&last.access).await;
    assert_eq!(
        world.authenticate(&first.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn revoking_either_token_of_the_last_sign_in_ends_the_grant() {
    let world = World::new().await;
    let client = world.client().await;
    for which in ["access", "refresh"] {
        let tokens = world.tokens(&client, ALICE).await;
        let bob = world.tokens(&client, BOB).await;
        let grant = world.caller(&tokens.access).await.grant().to_owned();
        let token = if which == "access" {
            &tokens.access
        } else {
            &tokens.refresh
        };
        let answer = world
            .form("/oauth/revoke", &[("client_id", &client), ("token", token)])
            .await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(world.events.take(), [format!("grant {grant}")], "{which}");
        assert_eq!(
            world.authenticate(&tokens.access).await.unwrap_err().status,
            StatusCode::UNAUTHORIZED
        );
        assert_eq!(world.refresh(&client, &tokens.refresh).await.error(), invalid_grant());
        world.caller(&bob.access).await;
    }
}

#[tokio::test]
async fn revoking_a_token_ends_its_sign_in_and_no_other() {
    let world = World::new().await;
    let client = world.client().await;
    let revoke = async |token: &str| {
        let fields = [("client_id", client.as_str()), ("token", token)];
        assert_eq!(world.form("/oauth/revoke", &fields).await.status, StatusCode::OK);
    };
    let laptop = world.tokens(&client, ALICE).await;
    let phone = world.tokens(&client, ALICE).await;
    let replaced = laptop.refresh.clone();
    let laptop = world.refresh(&client, &laptop.refresh).await.tokens();
    let grant = world.caller(&phone.access).await.grant().to_owned();
    // A token that was replaced stands for its sign-in, too.
    revoke(&replaced).await;
    assert_eq!(
        world.authenticate(&laptop.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.refresh(&client, &laptop.refresh).await.error(), invalid_grant());
    world.caller(&phone.access).await;
    let phone = world.refresh(&client, &phone.refresh).await.tokens();
    assert!(world.events.take().is_empty());
    // Nor does it end a later sign-in.
    let again = world.tokens(&client, ALICE).await;
    revoke(&replaced).await;
    world.caller(&again.access).await;
    revoke(&phone.access).await;
    world.caller(&again.access).await;
    assert!(world.events.take().is_empty());
    revoke(&again.refresh).await;
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
}

#[tokio::test]
async fn revocation_ignores_tokens_of_other_clients_and_reveals_nothing() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client_named("Other").await);
    let tokens = world.tokens(&client, ALICE).await;
    for token in [tokens.access.as_str(), "fmb_at_nonsense"] {
        let answer = world
            .form("/oauth/revoke", &[("client_id", &other), ("token", token)])
            .await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
    }
    world.caller(&tokens.access).await;
    assert!(world.events.take().is_empty());
    let missing = world.form("/oauth/revoke", &[("client_id", &client)]).await;
    assert_eq!(missing.error(), (400, "invalid_request".to_owned()));
    let unknown = world
        .form("/oauth/revoke", &[("client_id", "x"), ("token", &tokens.access)])
        .await;
    assert_eq!(unknown.error(), (401, "invalid_client".to_owned()));
}
