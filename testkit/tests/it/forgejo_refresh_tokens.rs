//! The counter that makes refresh tokens single-use.

use reqwest::StatusCode;

use crate::application::{Answer, App, assert_error, tokens};

fn assert_used(answer: &Answer) {
    assert_error(answer, "unauthorized_client", "token was already used");
}

#[tokio::test]
async fn refresh_invalidates_the_token_that_it_used() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    let second = tokens(app.refresh(&first.refresh, &[]).await);
    assert_used(&app.refresh(&first.refresh, &[]).await);
    // A reuse leaves the successor valid.
    tokens(app.refresh(&second.refresh, &[]).await);
    let counters = app.forgejo.counters();
    let counters = (counters.exchanges, counters.refreshes, counters.refresh_refusals);
    assert_eq!(counters, (1, 2, 1));
}

#[tokio::test]
async fn second_sign_in_invalidates_the_refresh_token_of_the_first_but_not_its_access_token() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    let second = app.sign_in("alice").await;
    assert_used(&app.refresh(&first.refresh, &[]).await);
    let bearer = format!("Bearer {}", first.access);
    assert_eq!(app.status("/user", &bearer).await, StatusCode::OK);
    tokens(app.refresh(&second.refresh, &[]).await);
}

#[tokio::test]
async fn counter_belongs_to_one_user() {
    let app = App::start().await;
    let alice = app.sign_in("alice").await;
    let bob = app.sign_in("bob").await;
    tokens(app.refresh(&bob.refresh, &[]).await);
    tokens(app.refresh(&alice.refresh, &[]).await);
}

#[tokio::test]
async fn one_of_two_refreshes_at_once_fails() {
    let app = App::start().await;
    let first = app.sign_in("alice").await;
    let (one, two) = tokio::join!(app.refresh(&first.refresh, &[]), app.refresh(&first.refresh, &[]));
    let one_won = one.0 == StatusCode::OK;
    let (won, lost) = if one_won { (one, two) } else { (two, one) };
    tokens(won);
    assert_used(&lost);
}
