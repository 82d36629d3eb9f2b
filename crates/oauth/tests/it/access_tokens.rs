//! The cache of access tokens: it saves queries of the store, and a revoked token is refused at
//! once.

use std::time::Duration;

use oauth::ports::GrantStore as _;

use crate::world::{ALICE, World};

#[tokio::test]
async fn a_cached_access_token_needs_no_store() {
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
async fn the_use_of_an_access_token_is_recorded_later() {
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
    // Another use within a minute is not recorded.
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
async fn uses_that_could_not_be_recorded_are_recorded_the_next_time() {
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
            // Long enough for the revocation to begin.
            _ = used() => {}
        }
    }
    drop(writing);
    assert_eq!(used().await, issued);
    world.server.record_uses().await.unwrap();
    assert_eq!(used().await, issued + Duration::from_secs(1000));
}

#[tokio::test]
async fn a_revoked_access_token_is_refused_at_once() {
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
async fn a_revocation_whose_client_disconnects_is_all_or_nothing() {
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
        world.server.finish_sign_ins().await;
        let reported = !world.events.take().is_empty();
        assert_eq!(
            world.authenticate(&tokens.access).await.is_err(),
            reported,
            "after {polls} polls"
        );
        // The next sign-in is the only one again.
        world.form("/oauth/revoke", &fields).await;
    }
}

#[tokio::test]
async fn reuse_of_a_refresh_token_evicts_cached_access_tokens() {
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
async fn an_expired_access_token_is_refused_cached_or_not() {
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
