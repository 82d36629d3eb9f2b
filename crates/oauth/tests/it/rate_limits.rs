//! The rate limits of sign-ins and token requests.

use std::time::Duration;

use http::{StatusCode, header};
use oauth::{Config, ids::UserId};

use crate::{
    browser::Browser,
    world::{ALICE, BOB, ISSUER, World},
};

#[tokio::test]
async fn a_grant_with_too_many_requests_is_limited_and_others_are_not() {
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

/// A server with low limits: ten for one client or user, fifty for all.
async fn small_world() -> World {
    let mut config = Config::new(ISSUER);
    config.sign_ins_per_minute = 50;
    config.tokens_per_minute = 50;
    World::with(config).await
}

#[tokio::test]
async fn a_flood_of_sign_ins_for_one_client_does_not_lock_out_others() {
    let world = small_world().await;
    let (flooded, other) = (world.client().await, world.client_named("Other").await);
    let tokens = world.tokens(&other, ALICE).await;
    for _ in 0..10 {
        Browser::default().approve(&world, &flooded).await.location();
    }
    let refused = Browser::default().approve(&world, &flooded).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!refused.header(header::RETRY_AFTER).is_empty());
    // Other clients can begin sign-ins, and signed-in users are not affected.
    world.tokens(&other, BOB).await;
    world.refresh(&other, &tokens.refresh).await.tokens();
    // The flooded client can begin again after a moment, before the pending sign-ins of the flood
    // expire.
    world.clock.advance(Duration::from_secs(6));
    world.tokens(&flooded, BOB).await;
}

#[tokio::test]
async fn sign_ins_of_many_clients_have_a_limit_that_does_not_affect_tokens() {
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
async fn one_user_cannot_use_up_the_limit_of_all_tokens() {
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
async fn only_valid_requests_count_towards_the_limit_of_all_tokens() {
    const USERS: i64 = 5;
    let world = small_world().await;
    let client = world.client().await;
    let mut all = Vec::new();
    for user in 0..USERS {
        world.upstream.add_user(UserId(100 + user), &format!("user{user}"));
        all.push(world.tokens(&client, UserId(100 + user)).await);
    }
    let late = world.tokens(&client, ALICE).await;
    // Invalid tokens and unknown clients do not count.
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
    // Each user has one token response so far, and Alice's is the sixth.
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
async fn answer_to_an_invalid_token_does_not_depend_on_the_guesses_of_others() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    for _ in 0..200 {
        let refused = world.refresh(&client, "fmb_rt_guess").await;
        assert_eq!(refused.error(), (400, "invalid_grant".to_owned()));
    }
    world.refresh(&client, &tokens.refresh).await.tokens();
}

#[tokio::test]
async fn wall_clock_that_is_set_back_locks_nobody_out() {
    let world = World::new().await;
    let client = world.client().await;
    let tokens = world.tokens(&client, ALICE).await;
    let tokens = world.refresh(&client, &tokens.refresh).await.tokens();
    world.clock.set_back(Duration::from_secs(3600));
    world.refresh(&client, &tokens.refresh).await.tokens();
    world.tokens(&client, BOB).await;
}
