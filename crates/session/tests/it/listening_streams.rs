//! Listening streams (GET) of dormant sessions: they wait, revive nothing, and end at the next
//! revival.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::time::sleep;

use crate::harness::{Harness, durable, in_background, run_ready_tasks};

#[tokio::test(start_paused = true)]
async fn listening_stream_waits_on_a_dormant_session_and_ends_at_its_revival() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    let attached = harness.listen("ann/x", &id).await;
    sleep(Duration::from_secs(20 * 60)).await;
    assert!(
        attached.into_body().collect().await.is_ok(),
        "it ends cleanly with the backend"
    );

    let mut parked = harness.listen("ann/x", &id).await;
    assert_eq!(parked.headers()["content-type"], "text/event-stream");
    assert_eq!(harness.registry.stats().dormant, 1);
    let comment = parked.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(comment.into_data().expect("data"), ":\n\n");
    let mut reader = in_background(parked.into_body().collect());
    sleep(Duration::from_secs(60)).await;
    assert!(reader.try_output().is_none(), "it stays while the session is dormant");
    harness.must_answer("ann/x", &id).await;
    assert!(reader.output().await.is_ok());
    // A stream on an attached session goes to the backend.
    let _served = harness.listen("ann/x", &id).await;
    assert_eq!(harness.spawner.last_backend().stream_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn listening_stream_on_a_backend_with_closed_output_waits_for_the_next_one() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    harness.spawner.last_backend().close_output();
    let mut parked = harness.listen("ann/x", &id).await;
    let comment = parked.body_mut().frame().await.expect("a frame").expect("no error");
    assert_eq!(comment.into_data().expect("data"), ":\n\n");
    assert_eq!(harness.registry.stats().dormant, 1);
    harness.must_answer("ann/x", &id).await;
    assert!(
        parked.into_body().collect().await.is_ok(),
        "it ends with the next backend"
    );
}

#[tokio::test(start_paused = true)]
async fn listening_streams_of_a_dormant_session_are_bounded() {
    let harness = Harness::new(durable()).await;
    let id = harness.open("ann/x").await;
    sleep(Duration::from_secs(20 * 60)).await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(harness.listen("ann/x", &id).await);
        run_ready_tasks().await;
    }
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    assert_eq!(
        harness.listen("ann/x", &id).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    drop(streams);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(harness.listen("ann/x", &id).await.status(), StatusCode::OK);
}
