//! The counter that makes refresh tokens single-use.

use std::time::Duration;

use reqwest::StatusCode;
use testkit::forgejo::{Fault, Times};

use crate::support::{App, assert_refused, tokens};

const USED: (&str, &str) = ("unauthorized_client", "token was already used");

#[tokio::test]
async fn a_refresh_kills_the_token_that_it_used() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    let second = tokens(app.refresh(&first.refresh, &[]).await);
    assert_refused(&app.refresh(&first.refresh, &[]).await, USED.0, USED.1);
    // A reuse does not harm the successor.
    tokens(app.refresh(&second.refresh, &[]).await);
    let counters = app.forgejo.counters();
    assert_eq!(
        (counters.exchanges, counters.refreshes, counters.refresh_refusals),
        (1, 2, 1)
    );
}

#[tokio::test]
async fn a_second_sign_in_kills_the_refresh_token_of_the_first_and_not_its_access_token() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    let second = app.sign_in("alice").await;
    assert_refused(&app.refresh(&first.refresh, &[]).await, USED.0, USED.1);
    assert_eq!(
        app.api("/user", &format!("Bearer {}", first.access)).await.0,
        StatusCode::OK
    );
    tokens(app.refresh(&second.refresh, &[]).await);
}

#[tokio::test]
async fn the_counter_is_the_users_own() {
    let app = App::start().await;
    let alice = app.sign_in("alice").await;
    let bob = app.sign_in("bob").await;
    tokens(app.refresh(&bob.refresh, &[]).await);
    tokens(app.refresh(&alice.refresh, &[]).await);
}

#[tokio::test]
async fn a_lost_refresh_response_has_used_the_token_up() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    app.forgejo
        .inject("/login/oauth/access_token", Fault::DropAfter, Times::Next(1));
    let form = format!(
        "grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
        app.id, app.secret, first.refresh
    );
    app.post("/login/oauth/access_token")
        .body(form)
        .send()
        .await
        .unwrap_err();
    app.forgejo.wait_for(|counters| counters.refreshes == 1).await;
    assert_refused(&app.refresh(&first.refresh, &[]).await, USED.0, USED.1);
}

#[tokio::test]
async fn of_two_refreshes_at_once_one_fails_to_raise_the_counter() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    app.forgejo.set_token_window(Duration::from_millis(500));
    let (one, two) = tokio::join!(app.refresh(&first.refresh, &[]), app.refresh(&first.refresh, &[]));
    let (won, lost) = if one.0 == StatusCode::OK {
        (one, two)
    } else {
        (two, one)
    };
    tokens(won);
    assert_refused(&lost, "invalid_grant", "cannot increase the grant counter");
}

#[tokio::test]
async fn without_invalidation_a_refresh_token_lives_on() {
    let app = App::start().await;
    app.forgejo.set_invalidate_refresh_tokens(false);
    let first = app.sign_in("alice").await;
    for _ in 0..2 {
        tokens(app.refresh(&first.refresh, &[]).await);
    }
}
