//! The program of children is missing: log, readiness, responses, and the way back.

use std::{fs, os::unix::fs::symlink, time::Duration};

use http::{Method, StatusCode};
use testkit::{
    Client,
    broker::{ChildCommand, programs},
};
use tokio::time::{sleep, timeout};

use crate::harness::{
    Harness, WAIT_LIMIT, login_of,
    messages::{assert_error, initialize_request, initialize_until},
};

async fn readiness(harness: &Harness) -> (u16, String) {
    let client = Client::new(format!("{}/readyz", harness.broker.url()).parse().unwrap());
    let answer = client.raw(Method::GET, client.headers(), "").await.unwrap();
    (answer.status.as_u16(), answer.text())
}

/// Waits until readiness is as expected: a result holds for a second.
async fn readiness_becomes(harness: &Harness, expected: &(u16, String)) {
    let wait = timeout(WAIT_LIMIT, async {
        while readiness(harness).await != *expected {
            sleep(Duration::from_millis(10)).await;
        }
    });
    wait.await.unwrap_or_else(|_| panic!("readiness is never {expected:?}"));
}

#[tokio::test]
async fn missing_program_is_warned_of_and_not_ready_and_renews_nothing_until_it_appears() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("the-server");
    let not_ready = (503, "not ready: program\n".to_owned());
    let harness = Harness::with_child(ChildCommand::fake_forgejo_mcp(&program), &[]).await;

    // The start warns before anything asks.
    let log = harness.broker.log();
    log.contains("readiness probe failed").await;
    let warning = format!("child.command: program {program:?} (or its interpreter) was not found");
    let warning = warning.replace('"', "\\\"");
    assert_eq!(log.count(&warning), 1, "{}", log.text());
    assert_eq!(readiness(&harness).await, not_ready);

    let alice = harness.signed_in("alice").await;
    for id in 0..4 {
        let answer = alice.post(initialize_request(id)).await.unwrap();
        // 503 while the next start is not due yet.
        let status = if answer.status == 503 && id > 0 { 503 } else { 502 };
        assert_error(&answer, status, id);
        assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    }
    assert_eq!(harness.forgejo.counters().refreshes, 0, "the token is not at fault");

    // A file that is not executable is no better.
    fs::write(&program, "").unwrap();
    assert_eq!(readiness(&harness).await, not_ready);
    initialize_until(&alice, StatusCode::BAD_GATEWAY).await;
    fs::remove_file(&program).unwrap();

    symlink(&programs().fake_forgejo_mcp, &program).unwrap();
    readiness_becomes(&harness, &(200, "ready\n".to_owned())).await;
    let session = alice.another_session();
    initialize_until(&session, StatusCode::OK).await;
    session.initialize().await.unwrap();
    session.initialized().await.unwrap();
    assert_eq!(login_of(&session).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, 0);

    // Each change is logged once, however often readiness is asked for.
    fs::remove_file(&program).unwrap();
    readiness_becomes(&harness, &not_ready).await;
    for _ in 0..3 {
        assert_eq!(readiness(&harness).await, not_ready);
    }
    assert_eq!(log.count("readiness probe failed"), 2);
    assert_eq!(log.count("readiness probe succeeds again"), 1);
}
