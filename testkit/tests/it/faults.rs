//! Faults, turned on and off while the server runs.

use std::time::Duration;

use reqwest::StatusCode;
use testkit::forgejo::{Fault, Times};
use tokio::time::Instant;

use crate::support::{App, tokens};

#[tokio::test]
async fn a_status_strikes_as_often_as_told_and_has_no_effect() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    app.forgejo.inject(
        "/login/oauth/access_token",
        Fault::Status(StatusCode::BAD_GATEWAY),
        Times::Next(1),
    );
    assert_eq!(app.exchange(&code, &[]).await.0, StatusCode::BAD_GATEWAY);
    tokens(app.exchange(&code, &[]).await);
    app.forgejo.inject(
        "/api",
        Fault::Status(StatusCode::SERVICE_UNAVAILABLE),
        Times::UntilCleared,
    );
    for _ in 0..3 {
        assert_eq!(app.api("/version", "").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    app.forgejo.clear_faults();
    assert_eq!(app.api("/version", "").await.0, StatusCode::OK);
    assert_eq!(app.forgejo.counters().requests_to("/api/v1/version"), 4);
}

#[tokio::test]
async fn a_delay_holds_a_request_back() {
    let app = App::start().await;
    app.forgejo
        .inject("/api", Fault::Delay(Duration::from_millis(200)), Times::Next(1));
    let started = Instant::now();
    assert_eq!(app.api("/version", "").await.0, StatusCode::OK);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn a_connection_dropped_before_had_no_effect() {
    let app = App::start().await;
    let code = app.code("alice", &[]).await;
    app.forgejo
        .inject("/login/oauth/access_token", Fault::DropBefore, Times::Next(1));
    let form = format!("grant_type=authorization_code&code={code}");
    app.post("/login/oauth/access_token")
        .body(form)
        .send()
        .await
        .unwrap_err();
    assert_eq!(app.forgejo.counters().exchange_refusals, 0);
    tokens(app.exchange(&code, &[]).await);
}
