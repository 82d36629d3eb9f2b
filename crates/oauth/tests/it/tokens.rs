//! Codes, rotation, reuse, revocation.

use std::time::Duration;

use http::StatusCode;

use crate::{
    browser::Browser,
    world::{ALICE, BOB, World, code_form, with},
};

fn invalid_grant() -> (u16, String) {
    (400, "invalid_grant".to_owned())
}

#[tokio::test]
async fn a_code_is_bound_to_client_redirect_uri_and_verifier() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client().await);
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
    for missing in ["code", "redirect_uri", "code_verifier", "grant_type"] {
        let answer = world.form("/oauth/token", &with(&form, &[(missing, "")])).await;
        assert_eq!(answer.error(), (400, "invalid_request".to_owned()), "{missing}");
    }
    world.form("/oauth/token", &form).await.tokens();
}

#[tokio::test]
async fn a_code_runs_out() {
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
    let bystander = world.tokens(&client, ALICE).await;
    let code = Browser::default().sign_in(&world, &client, ALICE).await;
    let tokens = world.exchange(&client, &code).await.tokens();
    let grant = world.caller(&tokens.access).await.grant().to_owned();
    // However late.
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(world.exchange(&client, &code).await.error(), invalid_grant());
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(world.refresh(&client, &tokens.refresh).await.error(), invalid_grant());
    assert_eq!(world.events.take(), [format!("grant {grant}")]);
    world.caller(&bystander.access).await;
}

#[tokio::test]
async fn of_two_exchanges_at_once_one_succeeds_and_the_grant_ends() {
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
async fn a_refresh_gives_new_tokens_of_the_same_grant() {
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
async fn six_refreshes_at_once_all_succeed_and_have_one_successor() {
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
async fn a_predecessor_is_good_until_its_successor_is_used() {
    let mut world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    // The answer was lost; the client comes back much later, and after a restart.
    world.clock.advance(Duration::from_secs(59 * 60));
    world.restart([7; 32]).await;
    let again = world.refresh(&client, &first.refresh).await.tokens();
    assert_eq!(again.refresh, second.refresh, "the same successor");
    world.caller(&again.access).await;

    // Now the successor is used: it becomes the predecessor, and the first one an ancestor.
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
async fn a_predecessor_stays_good_when_the_key_is_changed() {
    let mut world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    world.restart([8; 32]).await;
    let again = world.refresh(&client, &first.refresh).await.tokens();
    assert_ne!(again.refresh, second.refresh);
    // Two successors of one generation: both are good.
    world.refresh(&client, &again.refresh).await.tokens();
    world.refresh(&client, &second.refresh).await.tokens();
}

#[tokio::test]
async fn a_refresh_token_is_bound_to_its_client_and_runs_out() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client().await);
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
async fn a_grant_has_a_limited_number_of_access_tokens() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let mut last = first.clone();
    for _ in 0..40 {
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
async fn revoking_either_token_ends_the_grant() {
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
async fn revocation_touches_no_token_of_another_client_and_tells_nothing() {
    let world = World::new().await;
    let (client, other) = (world.client().await, world.client().await);
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
