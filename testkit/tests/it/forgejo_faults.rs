//! Faults, turned on and off while the server runs.

use std::time::Duration;

use reqwest::StatusCode;
use testkit::forgejo::{Fault, Times};
use tokio::time::Instant;

use crate::application::{App, tokens};

const TOKEN: &str = "/login/oauth/access_token";

#[tokio::test]
async fn status_replaces_the_answers_of_a_number_of_requests_without_effect() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    let (bad_gateway, unavailable) = (StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE);
    app.forgejo.inject(TOKEN, Fault::Status(bad_gateway), Times::Next(1));
    assert_eq!(app.exchange(&code, &[]).await.0, bad_gateway);
    tokens(app.exchange(&code, &[]).await);
    app.forgejo
        .inject("/api", Fault::Status(unavailable), Times::UntilCleared);
    for _ in 0..3 {
        assert_eq!(app.status("/version", "").await, unavailable);
    }
    app.forgejo.clear_faults();
    assert_eq!(app.status("/version", "").await, StatusCode::OK);
    assert_eq!(app.forgejo.counters().requests_to("/api/v1/version"), 4);
}

#[tokio::test]
async fn delay_slows_a_request_down() {
    let app = App::start().await;
    let delay = Duration::from_millis(200);
    app.forgejo.inject("/api", Fault::Delay(delay), Times::Next(1));
    let started = Instant::now();
    assert_eq!(app.status("/version", "").await, StatusCode::OK);
    assert!(started.elapsed() >= delay);
}
