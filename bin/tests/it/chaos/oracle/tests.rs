//! The oracle sees each violation, and excuses only what a kill or a stop explains.

use super::*;

const CHILD_ENDED: &str = "200 OK: the MCP server of this session has ended";

/// Sessions `a` and `b`. Child 7 of `a` has taken two calls, its child 8 none, and child 9 of
/// `b` one.
fn ledger(more: &[&str]) -> Ledger {
    let lines = [
        r#"{"message":"child started","tag":"aa","pid":7}"#,
        r#"{"message":"child started","tag":"aa","pid":8}"#,
        r#"{"message":"child started","tag":"bb","pid":9}"#,
        r#"{"message":"took a.0 pid=7","tag":"aa"}"#,
        r#"{"message":"took a.1 pid=7","tag":"aa"}"#,
        r#"{"message":"took b.0 pid=9","tag":"bb"}"#,
    ];
    Ledger::from_lines(&[&lines, more].concat())
}

/// A kill at 5 s.
fn kill(pid: u32, tag: &str) -> Kill {
    Kill {
        pid,
        tag: tag.to_owned(),
        issued: Duration::from_millis(5_000),
        exited: Duration::from_millis(5_010),
    }
}

fn call(mark: &str, times: [u64; 2], outcome: CallOutcome) -> Call {
    Call {
        session: mark.split('.').next().unwrap().to_owned(),
        mark: mark.to_owned(),
        login: None,
        notifies: false,
        asks: false,
        start: Duration::from_millis(times[0]),
        end: Duration::from_millis(times[1]),
        keeps_connection: false,
        outcome,
    }
}

fn stamp(mark: &str, pid: u32) -> Stamp {
    Stamp {
        mark: mark.to_owned(),
        pid,
        login: Some("alice".to_owned()),
        nonce: None,
    }
}

/// The number of violations if this call failed and these children were killed.
fn violations_of_failed(mark: &str, times: [u64; 2], kills: &[Kill]) -> usize {
    let calls = [call(mark, times, CallOutcome::Failed(CHILD_ENDED.to_owned()))];
    Oracle::check(&ledger(&[]), kills, &[], &calls, &[]).violations.len()
}

#[test]
fn only_kill_of_taker_excuses_failed_call() {
    let during = [4_990, 5_020];
    assert_eq!(violations_of_failed("a.1", during, &[kill(7, "aa")]), 0);
    for kills in [&[][..], &[kill(8, "aa")], &[kill(9, "bb")]] {
        assert_eq!(violations_of_failed("a.1", during, kills), 1, "{kills:?}");
    }
}

#[test]
fn kill_before_or_after_call_does_not_excuse_it() {
    for times in [[5_011, 5_020], [4_980, 4_999]] {
        for mark in ["a.1", "a.2"] {
            assert_eq!(
                violations_of_failed(mark, times, &[kill(7, "aa")]),
                1,
                "{mark} {times:?}"
            );
        }
    }
}

#[test]
fn kill_in_session_excuses_one_call_without_taker() {
    let during = [4_990, 5_020];
    assert_eq!(violations_of_failed("a.2", during, &[kill(8, "aa")]), 0);
    assert_eq!(violations_of_failed("a.2", during, &[kill(9, "bb")]), 1);
    let failed = |mark| call(mark, during, CallOutcome::Failed(CHILD_ENDED.to_owned()));
    let calls = [failed("a.1"), failed("a.2")];
    let oracle = Oracle::check(&ledger(&[]), &[kill(7, "aa")], &[], &calls, &[]);
    assert_eq!((oracle.violations.len(), oracle.excused), (1, 1));
    let calls = calls.map(|call| Call { asks: true, ..call });
    let oracle = Oracle::check(&ledger(&[]), &[kill(7, "aa")], &[], &calls, &[]);
    assert_eq!((oracle.violations.len(), oracle.excused), (0, 2));
}

#[test]
fn other_error_than_end_of_child_is_violation() {
    for error in ["503 Service Unavailable: try again later", "404 Not Found", "no answer"] {
        let calls = [call("a.1", [4_990, 5_020], CallOutcome::Failed(error.to_owned()))];
        let oracle = Oracle::check(&ledger(&[]), &[kill(7, "aa")], &[], &calls, &[]);
        assert_eq!(oracle.violations.len(), 1, "{error}");
    }
}

#[test]
fn request_is_lost_only_with_kept_connection_during_stop() {
    let stops = [BrokerStop {
        start: Duration::from_millis(5_000),
        end: Duration::from_millis(6_000),
    }];
    let is_lost = |mark, times, keeps_connection, error: &str| {
        let calls = [Call {
            keeps_connection,
            ..call(mark, times, CallOutcome::Failed(error.to_owned()))
        }];
        let oracle = Oracle::check(&ledger(&[]), &[], &stops, &calls, &[]);
        assert_eq!(oracle.lost + oracle.violations.len(), 1);
        oracle.lost == 1
    };
    let during = [5_990, 6_020];
    assert!(is_lost("a.2", during, true, "TypeError: fetch failed"));
    assert!(is_lost(
        "a.2",
        during,
        true,
        "MCPError: lost with its connection: ReadError: "
    ));
    assert!(!is_lost("a.2", during, false, "TypeError: fetch failed"));
    assert!(!is_lost("a.2", during, true, "503 Service Unavailable"));
    assert!(
        !is_lost("a.1", during, true, "TypeError: fetch failed"),
        "a child took it"
    );
    assert!(!is_lost("a.2", [6_010, 6_020], true, "TypeError: fetch failed"));
}

#[test]
fn answer_must_come_from_taker_and_belong_to_call() {
    let violations = |stamp, login| {
        let calls = [Call {
            login,
            ..call("a.1", [0, 1], CallOutcome::Answered(stamp))
        }];
        Oracle::check(&ledger(&[]), &[], &[], &calls, &[]).violations.len()
    };
    assert_eq!(violations(stamp("a.1", 7), Some("alice")), 0);
    assert_eq!(violations(stamp("a.1", 7), Some("bob")), 1);
    assert_eq!(violations(stamp("a.1", 8), None), 1);
    assert_eq!(violations(stamp("a.0", 7), None), 1);
}

#[test]
fn call_is_taken_once_and_in_its_own_session() {
    let calls = [call("a.1", [0, 1], CallOutcome::Answered(stamp("a.1", 7)))];
    for (line, minimum) in [
        (r#"{"message":"took a.1 pid=8","tag":"aa"}"#, 1),
        (r#"{"message":"took a.2 pid=8","tag":"aa"}"#, 0),
        (r#"{"message":"took b.1 pid=8","tag":"aa"}"#, 1),
    ] {
        let found = Oracle::check(&ledger(&[line]), &[], &[], &calls, &[]).violations.len();
        assert!(found >= minimum && (found == 0) == (minimum == 0), "{line}: {found}");
    }
}

/// A stop of the broker from 5 to 6 s.
fn stop() -> BrokerStop {
    BrokerStop {
        start: Duration::from_millis(5_000),
        end: Duration::from_millis(6_000),
    }
}

#[test]
fn notification_may_be_missing_only_if_the_broker_stopped() {
    for (times, missed) in [
        ([4_990, 5_010], 1),
        ([4_000, 4_800], 1),
        ([3_000, 3_900], 0),
        ([6_001, 6_010], 0),
    ] {
        let calls = [Call {
            notifies: true,
            ..call("a.1", times, CallOutcome::Answered(stamp("a.1", 7)))
        }];
        let oracle = Oracle::check(&ledger(&[]), &[], &[stop()], &calls, &[]);
        assert_eq!(
            (oracle.missed, oracle.violations.len()),
            (missed, 1 - missed),
            "{times:?}"
        );
    }
}

#[test]
fn question_must_be_answered_by_its_own_answer() {
    for (nonce, violations) in [(Some("a.1"), 0), (Some("a.0"), 1), (Some("b.0"), 1), (None, 1)] {
        let stamp = Stamp {
            nonce: nonce.map(str::to_owned),
            ..stamp("a.1", 7)
        };
        let calls = [Call {
            asks: true,
            ..call("a.1", [0, 1], CallOutcome::Answered(stamp))
        }];
        let oracle = Oracle::check(&ledger(&[]), &[], &[], &calls, &[]);
        assert_eq!(
            (oracle.violations.len(), oracle.questions),
            (violations, 1),
            "{nonce:?}"
        );
    }
}

#[test]
fn call_with_a_question_may_fail_with_a_stop_if_it_got_a_response() {
    let lost = "200 OK: the response to this request is no longer available";
    for (asks, times, error, violations) in [
        (true, [4_990, 5_010], lost, 0),
        (true, [4_990, 5_010], "no response for 30 s", 1),
        (true, [6_010, 6_020], lost, 1),
        (false, [4_990, 5_010], lost, 1),
    ] {
        let calls = [Call {
            asks,
            ..call("a.1", times, CallOutcome::Failed(error.to_owned()))
        }];
        let oracle = Oracle::check(&ledger(&[]), &[], &[stop()], &calls, &[]);
        assert_eq!(oracle.violations.len(), violations, "{asks} {times:?} {error}");
    }
}

#[test]
fn notification_comes_once_and_to_its_own_session() {
    let to = |session: &str| ServerNotification {
        session: session.to_owned(),
        stamp: stamp("a.1", 7),
    };
    let calls = [Call {
        notifies: true,
        ..call("a.1", [0, 1], CallOutcome::Answered(stamp("a.1", 7)))
    }];
    for (notifications, violations) in [
        (vec![to("a")], 0),
        (vec![], 1),
        (vec![to("a"), to("a")], 1),
        (vec![to("b")], 1),
    ] {
        let found = Oracle::check(&ledger(&[]), &[], &[], &calls, &notifications)
            .violations
            .len();
        assert_eq!(found, violations, "{notifications:?}");
    }
}
