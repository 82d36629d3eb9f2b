//! The guard under load: bearers that are known without asking the store, and refused at once when they have ended; and
//! the ceilings of the token endpoint.

use std::time::Duration;

use http::header;

use crate::world::{ALICE, World};

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
