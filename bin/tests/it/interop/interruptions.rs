//! What interrupts a call, seen by each client: the session gets another child while a question is
//! open, the broker is killed during the call, and the stream of a call ends.
//!
//! The Inspector's command line cannot answer a question, so it makes a slow call instead.

mod calling_client;

use std::time::Duration;

use serde_json::{Value, json};
use testkit::forwarder::McpRequest;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};

use self::calling_client::CallingClient;
use super::clients::{CLIENTS, ClientKind};
use crate::harness::{Harness, WAIT_LIMIT};

/// The line of the log after which another child serves a session.
const ROTATED: &str = "session moved to a new backend";

/// A client that has come back must learn within this time that its call is lost. It is far from
/// the time limits of clients (a minute) and of a machine that runs other tests.
const LOST_WITHIN: Duration = Duration::from_secs(20);

/// Within this time a client that polls would poll several times: the broker tells it to wait for a
/// second.
const POLLING_PERIOD: Duration = Duration::from_secs(5);
/// One resumption may be under way when the call ends, and its answer ends the polling.
const MAX_RESUMPTIONS: usize = 2;

/// Runs a test with each client, all at once.
async fn with_each_client<F: Future<Output = ()> + Send + 'static>(test: impl Fn(ClientKind) -> F) {
    let mut tests: JoinSet<()> = CLIENTS.into_iter().map(test).collect();
    // One client that fails does not hide another.
    let mut failures = 0;
    while let Some(ended) = tests.join_next().await {
        failures += usize::from(ended.is_err());
    }
    assert_eq!(failures, 0, "clients have failed, each with its own message");
}

/// Rotates all sessions of a user. Returns the process ids of the replaced children.
pub(super) async fn rotate(harness: &Harness, login: &str) -> Vec<Value> {
    let replaced = harness.broker.children().unwrap();
    let before = harness.broker.log().count(ROTATED);
    harness.signed_in(login).await;
    let log = harness.broker.log();
    log.contains_times(ROTATED, before + replaced.len()).await;
    replaced.iter().map(|child| json!(child.pid)).collect()
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn answer_reaches_the_child_that_asked_although_the_session_has_another_one() {
    with_each_client(|kind| async move {
        let harness = Harness::new(&[]).await;
        let url = harness.broker.url();
        let (replaced, outcome) = if matches!(kind, ClientKind::Inspector) {
            let slow = json!({ "mark": "m", "ms": 5_000 });
            let mut client = CallingClient::start(kind, &url, "alice", "test_stamp", &slow).await;
            harness.broker.log().contains("took m").await;
            (rotate(&harness, "alice").await, client.outcome().await)
        } else {
            let question = json!({ "id": "q1", "question": "delete repo A?" });
            let mut client = CallingClient::start(kind, &url, "alice", "test_ask", &question).await;
            assert_eq!(client.question().await, "delete repo A?", "{kind:?}");
            let replaced = rotate(&harness, "alice").await;
            client.answer("yes to A").await;
            (replaced, client.outcome().await)
        };
        let text = outcome.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let result: Value = serde_json::from_str(&text).unwrap();
        assert!(replaced.contains(&result["pid"]), "{kind:?}: {text}");
        if !matches!(kind, ClientKind::Inspector) {
            assert_eq!(
                result["answers"][0]["result"]["content"]["nonce"], "yes to A",
                "{kind:?}"
            );
        }
    })
    .await;
}

/// The time of the first request that resumes a stream after `since`.
fn resumed_after(requests: &[McpRequest], since: Instant) -> Option<Instant> {
    let resumptions = requests.iter().filter(|request| request.last_event_id.is_some());
    resumptions.map(|request| request.at).find(|at| *at > since)
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn call_of_a_killed_broker_fails_soon_after_its_client_has_come_back() {
    with_each_client(|kind| async move {
        let (mut harness, forwarder) = Harness::behind_recorder(&[]).await;
        let endless = json!({ "ms": 600_000 });
        let mut client = CallingClient::start(kind, &forwarder.url(), "alice", "test_sleep", &endless).await;
        harness.broker.log().contains("tool=test_sleep").await;
        let is_answer = |request: &McpRequest| request.stream_begun && request.method == "POST";
        let first_event_is_read = async {
            forwarder.wait_for(|requests| requests.iter().any(is_answer)).await;
            forwarder.all_is_read().await.unwrap();
        };
        timeout(WAIT_LIMIT, first_event_is_read)
            .await
            .expect("the answer becomes a stream");
        let killed = Instant::now();
        harness.kill_and_restart().await;
        let restarted = Instant::now();

        let outcome = timeout(WAIT_LIMIT, client.outcome()).await;
        let failed = Instant::now();
        let outcome = outcome.unwrap_or_else(|_| panic!("{kind:?}: the call hangs: {:#?}", forwarder.requests()));
        assert!(outcome.is_err(), "{kind:?}: {outcome:?}");
        let back = resumed_after(&forwarder.requests(), killed);
        let back = back.unwrap_or_else(|| panic!("{kind:?} does not come back: {outcome:?}"));
        let waited = failed - back.max(restarted);
        assert!(waited < LOST_WITHIN, "{kind:?} has waited for {waited:?}: {outcome:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn no_client_polls_behind_the_end_of_a_successful_call() {
    with_each_client(|kind| async move {
        let slow = json!({ "mark": "m", "ms": 2_000 });
        let outcome = assert_no_polling(kind, "test_stamp", &slow).await;
        assert!(outcome.is_ok(), "{kind:?}: {outcome:?}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs Node and Python: cargo xtask interop"]
async fn no_client_polls_behind_the_end_of_a_failed_call() {
    with_each_client(|kind| async move {
        let outcome = assert_no_polling(kind, "test_fail", &json!({ "ms": 2_000 })).await;
        assert!(outcome.is_err(), "{kind:?}: {outcome:?}");
    })
    .await;
}

/// Makes a call whose answer is a stream, and checks that the client does not resume it for ever.
async fn assert_no_polling(kind: ClientKind, tool: &str, arguments: &Value) -> Result<String, String> {
    let (_harness, forwarder) = Harness::behind_recorder(&[]).await;
    let mut client = CallingClient::start(kind, &forwarder.url(), "alice", tool, arguments).await;
    let outcome = client.outcome().await;
    let ended = Instant::now();
    let resumptions = |requests: &[McpRequest]| {
        let is_resumption = |request: &&McpRequest| request.at > ended && request.last_event_id.is_some();
        requests.iter().filter(is_resumption).count()
    };
    let polls = forwarder.wait_for(|requests| resumptions(requests) > MAX_RESUMPTIONS);
    let polls = timeout(POLLING_PERIOD, polls).await;
    let requests = forwarder.requests();
    report_resumptions(kind, tool, &requests);
    assert!(polls.is_err(), "{kind:?} polls behind the end: {requests:#?}");
    // It has been running all the time, or its silence proves nothing.
    client.end().await;
    outcome
}

/// Prints how often a client has resumed a stream, with the statuses that it got.
fn report_resumptions(kind: ClientKind, tool: &str, requests: &[McpRequest]) {
    let resumptions = requests.iter().filter(|request| request.last_event_id.is_some());
    let statuses: Vec<Option<u16>> = resumptions
        .map(|request| request.status.map(|status| status.as_u16()))
        .collect();
    println!(
        "{kind:?}, {tool}: {} resumptions, answered {statuses:?}",
        statuses.len()
    );
}
