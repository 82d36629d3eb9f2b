//! Starts of children that fail, and children that cannot replace the one before.

use serde_json::json;
use testkit::{broker::ChildCommand, client::Answer, forgejo_mcp::Script};
use tokio::time::timeout;

use super::{CHILD_STARTED, call, kill_child};
use crate::harness::{
    Harness, WAIT_LIMIT, login_of,
    messages::{assert_error, initialize_request, tools_list_request},
};

#[track_caller]
fn retry_after(answer: &Answer) -> u64 {
    let value = answer.header("retry-after");
    let value = value.unwrap_or_else(|| panic!("no Retry-After: {} {}", answer.status, answer.text()));
    value
        .parse()
        .unwrap_or_else(|_| panic!("{value:?} is no whole number of seconds"))
}

#[tokio::test]
async fn session_whose_next_child_does_not_fit_ends_with_404() {
    for misfit in [
        Script {
            protocol_version: Some("2025-06-18".to_owned()),
            ..Script::default()
        },
        Script {
            lacks: vec!["resources".to_owned()],
            ..Script::default()
        },
        Script {
            refuses_initialize: true,
            ..Script::default()
        },
    ] {
        let (harness, script) = Harness::with_script(&Script::default(), &[]).await;
        let alice = harness.in_session("alice").await;
        script.write(&misfit).unwrap();
        kill_child(&harness).await;
        // The request that meets the misfit already, without a failure before.
        for _ in 0..2 {
            let answer = alice.post(tools_list_request("x")).await.unwrap();
            assert_eq!(answer.status, 404, "{misfit:?}: {}", answer.text());
            assert_error(&answer, 404, "x");
        }
        harness.wait_for_children(0).await;
    }
}

#[tokio::test]
async fn session_whose_next_child_fails_to_start_goes_on_once_one_starts() {
    let (harness, script) = Harness::with_script(&Script::default(), &[]).await;
    let alice = harness.in_session("alice").await;
    let exits = Script {
        exit: Some(3),
        ..Script::default()
    };
    script.write(&exits).unwrap();
    kill_child(&harness).await;
    let answer = alice.post(tools_list_request("x")).await.unwrap();
    assert_error(&answer, 502, "x");
    retry_after(&answer);
    script.write(&Script::default()).unwrap();
    let served = timeout(WAIT_LIMIT, async {
        loop {
            let answer = alice.post(tools_list_request("x")).await.unwrap();
            if answer.status == 200 {
                return;
            }
            assert_error(&answer, answer.status.as_u16(), "x");
            assert!([502, 503].contains(&answer.status.as_u16()), "{}", answer.status);
            retry_after(&answer);
        }
    });
    served.await.expect("the session goes on");
    assert_eq!(login_of(&alice).await, "alice");
}

#[tokio::test]
async fn session_that_was_opened_just_before_a_kill_goes_on() {
    let mut harness = Harness::new(&[]).await;
    let alice = harness.signed_in("alice").await;
    alice.initialize().await.unwrap();
    harness.kill_and_restart().await;
    let answer = alice.post(tools_list_request("x")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    call(&alice, "test_echo", json!({})).await;
    assert_eq!(harness.broker.log().count(CHILD_STARTED), 2);
}

#[tokio::test]
async fn failing_starts_are_few_and_each_answer_says_when_to_retry() {
    let exits = ChildCommand {
        command: "/bin/sh".into(),
        args: ["-c", "echo begun >&2; exit 3"].map(str::to_owned).to_vec(),
        env: vec![],
    };
    let harness = Harness::with_child(exits, &[]).await;
    let alice = harness.signed_in("alice").await;
    for number in 0..12 {
        let answer = alice.post(initialize_request(number)).await.unwrap();
        let status = answer.status.as_u16();
        assert!([502, 503].contains(&status), "{}", answer.text());
        assert_error(&answer, status, number);
        assert!(retry_after(&answer) >= 1);
    }
    let starts = harness.broker.log().count(CHILD_STARTED);
    assert!((1..=6).contains(&starts), "{starts} starts");
}
