//! The program of children is missing: log, readiness, responses, and the way back.

use std::{fs, os::unix::fs::symlink};

use http::{Method, StatusCode};
use testkit::{
    Client,
    broker::{ChildCommand, programs},
};

use crate::harness::{
    Harness, login_of,
    messages::{assert_error, initialize_request, initialize_until},
};

async fn readiness(harness: &Harness) -> (u16, String) {
    let client = Client::new(format!("{}/readyz", harness.broker.url()).parse().unwrap());
    let answer = client.raw(Method::GET, client.headers(), "").await.unwrap();
    (answer.status.as_u16(), answer.text())
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
    for _ in 0..3 {
        let answer = alice.post(initialize_request("first")).await.unwrap();
        assert_error(&answer, 502, "first");
    }
    assert_eq!(harness.forgejo.counters().refreshes, 0, "the token is not at fault");

    // A file that is not executable is no better.
    fs::write(&program, "").unwrap();
    assert_eq!(readiness(&harness).await, not_ready);
    assert_error(&alice.post(initialize_request("second")).await.unwrap(), 502, "second");
    fs::remove_file(&program).unwrap();

    symlink(&programs().fake_forgejo_mcp, &program).unwrap();
    assert_eq!(readiness(&harness).await, (200, "ready\n".to_owned()));
    let session = alice.another_session();
    initialize_until(&session, StatusCode::OK).await;
    session.initialize().await.unwrap();
    session.initialized().await.unwrap();
    assert_eq!(login_of(&session).await, "alice");
    assert_eq!(harness.forgejo.counters().refreshes, 0);

    // Each change is logged once, however often readiness is asked for.
    fs::remove_file(&program).unwrap();
    for _ in 0..3 {
        assert_eq!(readiness(&harness).await, not_ready);
    }
    assert_eq!(log.count("readiness probe failed"), 2);
    assert_eq!(log.count("readiness probe succeeds again"), 1);
}
