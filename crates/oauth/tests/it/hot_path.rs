//! The guard under load: bearers that are known without asking the store, and refused at once when they have ended; and
//! the rate_limits of the token endpoint.

use std::time::Duration;

use http::{StatusCode, header};
use oauth::{Config, ids::UserId, ports::GrantStore as _};

use crate::{
    browser::Browser,
    world::{ALICE, BOB, ISSUER, World},
};

#[tokio::test]
async fn a_bearer_that_has_been_seen_needs_no_store() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    world.caller(&tokens.access).await;
    world.store.close().await;
    world.caller(&tokens.access).await;
    world.clock.advance(Duration::from_secs(60));
    let asked_again = world.authenticate(&tokens.access).await.unwrap_err();
    assert_eq!(asked_again.status.as_u16(), 503, "it is asked for again after a minute");
}

#[tokio::test]
async fn the_use_of_a_bearer_is_written_down_behind_it() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let used = async || world.store.grants_of_user(ALICE).await.unwrap()[0].last_used_at;
    let issued = used().await;
    world.server.record_uses().await.unwrap();
    assert_eq!(used().await, issued);
    world.clock.advance(Duration::from_secs(1000));
    world.caller(&tokens.access).await;
    assert_eq!(used().await, issued, "nothing is written while it is used");
    world.server.record_uses().await.unwrap();
    assert_eq!(used().await, issued + Duration::from_secs(1000));
    // Within a minute of the last note it is not noted again.
    world.clock.advance(Duration::from_secs(59));
    world.caller(&tokens.access).await;
    world.server.record_uses().await.unwrap();
    assert_eq!(used().await, issued + Duration::from_secs(1000));
    let query = "SELECT max(last_used_at) FROM oauth_clients";
    let of_client: i64 = sqlx::query_scalar(query)
        .fetch_one(world.store.readers())
        .await
        .unwrap();
    let since = used().await.duration_since(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(u64::try_from(of_client).unwrap(), since.as_secs(), "and its client");
}

#[tokio::test]
async fn uses_that_could_not_be_written_down_are_written_the_next_time() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let used = async || world.store.grants_of_user(ALICE).await.unwrap()[0].last_used_at;
    let issued = used().await;
    world.clock.advance(Duration::from_secs(1000));
    world.caller(&tokens.access).await;
    let writing = world.store.writer().begin_with("BEGIN IMMEDIATE").await.unwrap();
    {
        let mut recording = std::pin::pin!(world.server.record_uses());
        tokio::select! {
            biased;
            outcome = &mut recording => panic!("there is one writer: {outcome:?}"),
            // Long enough to have begun.
            _ = used() => {}
        }
    }
    drop(writing);
    assert_eq!(used().await, issued);
    world.server.record_uses().await.unwrap();
    assert_eq!(used().await, issued + Duration::from_secs(1000));
}

#[tokio::test]
async fn a_revoked_bearer_is_refused_at_once() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let other = world.tokens(&client, crate::world::BOB).await;
    world.caller(&tokens.access).await;
    world.caller(&other.access).await;
    world
        .form("/oauth/revoke", &[("client_id", &client), ("token", &tokens.refresh)])
        .await;
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status.as_u16(),
        401
    );
    world.caller(&other.access).await;
}

#[tokio::test]
async fn a_revocation_whose_client_hangs_up_happens_as_a_whole_or_not_at_all() {
    let world = World::new().await;
    let client = world.client().await;
    for polls in 1..20 {
        let tokens = world.tokens(&client, ALICE).await;
        world.caller(&tokens.access).await;
        world.events.take();
        let fields = [("client_id", client.as_str()), ("token", tokens.refresh.as_str())];
        let mut revocation = Box::pin(world.server.serve(crate::world::form_request("/oauth/revoke", &fields)));
        for _ in 0..polls {
            let polled = std::future::poll_fn(|context| std::task::Poll::Ready(revocation.as_mut().poll(context)));
            if polled.await.is_ready() {
                break;
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        drop(revocation);
        world.server.drain().await;
        let told = !world.events.take().is_empty();
        assert_eq!(
            world.authenticate(&tokens.access).await.is_err(),
            told,
            "after {polls} polls"
        );
    }
}

#[tokio::test]
async fn reuse_of_a_refresh_token_ends_what_was_cached() {
    let world = World::new().await;
    let client = world.client().await;
    let first = world.tokens(&client, ALICE).await;
    let second = world.refresh(&client, &first.refresh).await.tokens();
    let third = world.refresh(&client, &second.refresh).await.tokens();
    world.refresh(&client, &third.refresh).await.tokens();
    world.caller(&third.access).await;
    assert_eq!(
        world.refresh(&client, &first.refresh).await.error(),
        (400, "invalid_grant".to_owned())
    );
    assert!(world.authenticate(&third.access).await.is_err());
}

#[tokio::test]
async fn a_bearer_is_refused_when_it_expires_cached_or_not() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    // An hour, and the minute beyond it.
    world.clock.advance(Duration::from_secs(3659));
    world.caller(&tokens.access).await;
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(
        world.authenticate(&tokens.access).await.unwrap_err().status.as_u16(),
        401
    );
}

#[tokio::test]
async fn a_grant_that_asks_without_end_is_slowed_down_and_others_are_not() {
    let world = World::new().await;
    let client = world.client().await;
    let mut tokens = world.tokens(&client, ALICE).await;
    let slowed = loop {
        let answer = world.refresh(&client, &tokens.refresh).await;
        if answer.status != http::StatusCode::OK {
            break answer;
        }
        tokens = answer.tokens();
    };
    assert_eq!(slowed.error(), (429, "temporarily_unavailable".to_owned()));
    assert_eq!(slowed.header(header::RETRY_AFTER), "1");
    world.tokens(&client, crate::world::BOB).await;
    world.clock.advance(Duration::from_secs(1));
    world.refresh(&client, &tokens.refresh).await.tokens();
}

/// A server whose global rate_limits are low: ten for one client or user, fifty for all.
async fn small_world() -> World {
    let mut config = Config::new(ISSUER);
    config.sign_ins_per_minute = 50;
    config.tokens_per_minute = 50;
    World::with(config).await
}

#[tokio::test]
async fn who_begins_sign_ins_without_end_for_one_client_locks_out_no_other() {
    let world = small_world().await;
    let (flooded, other) = (world.client().await, world.client_named("Other").await);
    let tokens = world.tokens(&other, ALICE).await;
    for _ in 0..10 {
        Browser::default().approve(&world, &flooded).await.location();
    }
    let refused = Browser::default().approve(&world, &flooded).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.header(header::RETRY_AFTER).is_empty());
    // Another client begins, and whoever is signed in goes on.
    world.tokens(&other, BOB).await;
    world.refresh(&other, &tokens.refresh).await.tokens();
    // And the flooded one begins again after a moment, not when what the flood has left behind has run out.
    world.clock.advance(Duration::from_secs(6));
    world.tokens(&flooded, BOB).await;
}

#[tokio::test]
async fn sign_ins_of_many_clients_have_a_ceiling_that_leaves_tokens_alone() {
    let world = small_world().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let mut begun = 1;
    for number in 0..6 {
        let flooding = world.client_named(&format!("flood {number}")).await;
        for _ in 0..10 {
            let answer = Browser::default().approve(&world, &flooding).await;
            begun += u32::from(answer.status == StatusCode::SEE_OTHER);
        }
    }
    assert_eq!(begun, 50);
    let refused = Browser::default().approve(&world, &client).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.header(header::RETRY_AFTER).is_empty());
    world.caller(&tokens.access).await;
    world.refresh(&client, &tokens.refresh).await.tokens();
}

#[tokio::test]
async fn one_user_cannot_use_up_what_all_may_have_of_tokens() {
    let world = small_world().await;
    let clients = [world.client_named("One").await, world.client_named("Two").await];
    let mut tokens = Vec::new();
    for client in &clients {
        tokens.push((client, world.tokens(client, ALICE).await));
    }
    let bob = world.tokens(&clients[0], BOB).await;
    for turn in 0..8 {
        let (client, tokens) = &mut tokens[turn % 2];
        *tokens = world.refresh(client, &tokens.refresh).await.tokens();
    }
    for (client, tokens) in &tokens {
        let slowed = world.refresh(client, &tokens.refresh).await;
        assert_eq!(slowed.error(), (429, "temporarily_unavailable".to_owned()));
        assert_eq!(slowed.header(header::RETRY_AFTER), "6");
    }
    world.refresh(&clients[0], &bob.refresh).await.tokens();
    world.clock.advance(Duration::from_secs(6));
    world
        .refresh(clients.last().unwrap(), &tokens[1].1.refresh)
        .await
        .tokens();
}

#[tokio::test]
async fn all_tokens_have_a_ceiling_that_only_good_ones_count_towards() {
    const USERS: i64 = 5;
    let world = small_world().await;
    let client = world.client().await;
    let mut all = Vec::new();
    for user in 0..USERS {
        world.upstream.add_user(UserId(100 + user), &format!("user{user}"));
        all.push(world.tokens(&client, UserId(100 + user)).await);
    }
    let late = world.tokens(&client, ALICE).await;
    // Guesses, and whoever is no client, take nothing of it.
    for _ in 0..60 {
        assert_eq!(
            world.refresh(&client, "fmb_rt_guess").await.status,
            StatusCode::BAD_REQUEST
        );
        assert_eq!(
            world.refresh("nobody", &late.refresh).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    // One each has been issued, and Alice's is the sixth.
    let mut issued = USERS + 1;
    for tokens in &mut all {
        for _ in 0..9 {
            let answer = world.refresh(&client, &tokens.refresh).await;
            if answer.status != StatusCode::OK {
                assert_eq!(answer.error(), (503, "temporarily_unavailable".to_owned()));
                continue;
            }
            *tokens = answer.tokens();
            issued += 1;
        }
    }
    assert_eq!(issued, 50);
    let busy = world.refresh(&client, &late.refresh).await;
    assert_eq!(busy.error(), (503, "temporarily_unavailable".to_owned()));
    assert_eq!(busy.header(header::RETRY_AFTER), "2");
    world.clock.advance(Duration::from_secs(2));
    world.refresh(&client, &late.refresh).await.tokens();
}

#[tokio::test]
async fn who_guesses_in_the_name_of_a_client_does_not_lock_out_its_users() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    for _ in 0..100 {
        assert_eq!(
            world.refresh(&client, "fmb_rt_guess").await.error(),
            (400, "invalid_grant".to_owned())
        );
    }
    assert_eq!(world.refresh(&client, "fmb_rt_guess").await.error().0, 429);
    world.refresh(&client, &tokens.refresh).await.tokens();
}
