//! Checks the calls of a run: excuses the failures that a kill explains, and reports every other
//! violation.
//!
//! A failed call is excused only if it was in flight on a child of its own session at the kill of
//! that child. The ledger names the child. A call without an entry reached no child; then a kill of
//! some child of the session during the call excuses it, and that kill excuses no other call. In
//! both cases the client must have got a response that says that the child has ended.
//!
//! A client that keeps its connections may send a request at the moment at which a stopping broker
//! closes the connection. By the rules of HTTP/1.1 the request is then lost (RFC 9112 section
//! 9.3.1). Such requests are counted separately: no child has seen the request, the broker was
//! stopping, and there was no response.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde_json::Value;

use super::{
    faults::{BrokerStop, Kill},
    ledger::{Ledger, Tag},
};

/// A call that has ended.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The client's name of the session. The marks of its calls are this name, a full stop, and a
    /// number.
    pub(crate) session: String,
    pub(crate) mark: String,
    /// The user whose token the child must hold, if the call asked for the login.
    pub(crate) login: Option<&'static str>,
    /// The child sends a notification before its answer.
    pub(crate) notifies: bool,
    pub(crate) start: Duration,
    pub(crate) end: Duration,
    /// The client reuses connections.
    pub(crate) keeps_connection: bool,
    pub(crate) outcome: CallOutcome,
}

/// The outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallOutcome {
    Answered(Stamp),
    /// The error as the client reports it.
    Failed(String),
}

/// The answer of `test_stamp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    mark: String,
    pid: u32,
    login: Option<String>,
}

/// A notification of a child, and the session that received it.
#[derive(Clone, Debug)]
pub(crate) struct ServerNotification {
    pub(crate) session: String,
    pub(crate) stamp: Stamp,
}

/// The result of the checks.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) answered: usize,
    excused: usize,
    /// Requests that were lost with a connection that was just closing.
    pub(crate) lost: usize,
    notifications: usize,
    /// Notifications that were lost with the stream of a child that was replaced.
    missed: usize,
    /// The median duration of the answered calls.
    pub(crate) median: Duration,
    pub(crate) violations: Vec<Violation>,
}

/// A violation of what the broker guarantees.
#[derive(Debug)]
pub(crate) struct Violation {
    description: String,
    session: Option<Tag>,
    time: Duration,
}

/// The errors after the end of a child, and after a failed start of one.
const CHILD_ENDED_ERRORS: [&str; 2] = [
    "the MCP server of this session has ended",
    "The MCP server did not start",
];

/// The number of violations in a report, and the number of those with the log of their session.
const REPORTED_VIOLATIONS: usize = 20;
const REPORTED_LOGS: usize = 3;

impl Oracle {
    /// Checks a run.
    pub(crate) fn check(
        ledger: &Ledger,
        kills: &[Kill],
        stops: &[BrokerStop],
        calls: &[Call],
        notifications: &[ServerNotification],
    ) -> Self {
        let mut oracle = Self {
            notifications: notifications.len(),
            ..Self::default()
        };
        let tags = oracle.match_sessions(ledger);
        let mut used_kills = HashSet::new();
        for call in calls {
            let tag = tags.get(call.session.as_str());
            if is_lost(ledger, stops, call) {
                oracle.lost += 1;
                continue;
            }
            let checked = match &call.outcome {
                CallOutcome::Answered(stamp) => {
                    oracle.answered += 1;
                    check_answer(ledger, call, stamp)
                }
                CallOutcome::Failed(error) => {
                    check_failure(ledger, kills, call, error, tag, &mut used_kills).inspect(|()| oracle.excused += 1)
                }
            };
            if let Err(reason) = checked {
                oracle.add_violation(format!("{reason}: {call:?}"), tag, call.end);
            }
        }
        oracle.check_notifications(ledger, calls, notifications, &tags);
        let answered = calls
            .iter()
            .filter(|call| matches!(call.outcome, CallOutcome::Answered(_)));
        let mut durations: Vec<Duration> = answered.map(|call| call.end.saturating_sub(call.start)).collect();
        durations.sort_unstable();
        oracle.median = durations.get(durations.len() / 2).copied().unwrap_or_default();
        oracle
    }

    /// The violations, the first of them with the log lines of their sessions.
    pub(crate) fn report(&self, ledger: &Ledger) -> String {
        let mut report = format!("{} violations\n", self.violations.len());
        for (number, violation) in self.violations.iter().take(REPORTED_VIOLATIONS).enumerate() {
            report += &format!("{}\n", violation.description);
            let session = violation.session.iter().filter(|_| number < REPORTED_LOGS);
            for line in session.flat_map(|tag| ledger.around(tag, violation.time)) {
                report += &format!("    {line}\n");
            }
        }
        report
    }

    /// Maps the clients' names of sessions to those in the log, by the calls that they took. Each
    /// must match exactly one of the other.
    fn match_sessions(&mut self, ledger: &Ledger) -> HashMap<String, Tag> {
        let mut tags: HashMap<String, Tag> = HashMap::new();
        let mut sessions: BTreeMap<Tag, String> = BTreeMap::new();
        for (mark, takers) in ledger.taken_calls() {
            let session = mark.rsplit_once('.').map_or(mark.as_str(), |(session, _)| session);
            for taker in takers {
                let tag = tags.entry(session.to_owned()).or_insert_with(|| taker.tag.clone());
                let owner = sessions.entry(taker.tag.clone()).or_insert_with(|| session.to_owned());
                if *tag != taker.tag || owner != session {
                    let description = format!("{mark} was taken in the session of {owner}");
                    self.add_violation(description, Some(&taker.tag), Duration::ZERO);
                }
            }
        }
        tags
    }

    /// Checks that each notification reached its own session, and once. It may be missing only if
    /// the child was replaced during the call: the broker then ends the streams of the session, and
    /// a notification at that moment is lost with them.
    fn check_notifications(
        &mut self,
        ledger: &Ledger,
        calls: &[Call],
        notifications: &[ServerNotification],
        tags: &HashMap<String, Tag>,
    ) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for notification in notifications {
            let (session, mark) = (&notification.session, notification.mark());
            *counts.entry(mark).or_default() += 1;
            if mark.rsplit_once('.').is_none_or(|(sender, _)| sender != session) {
                let description = format!("{session} received the notification of {mark}");
                self.add_violation(description, tags.get(session), Duration::ZERO);
            }
        }
        for call in calls.iter().filter(|call| call.notifies) {
            let count = counts.get(call.mark.as_str()).copied().unwrap_or_default();
            let minimum = usize::from(matches!(call.outcome, CallOutcome::Answered(_)));
            let tag = tags.get(&call.session);
            if count < minimum && tag.is_some_and(|tag| was_replaced(ledger, call, tag)) {
                self.missed += 1;
            } else if count > 1 || count < minimum {
                self.add_violation(format!("its notification came {count} times: {call:?}"), tag, call.end);
            }
        }
    }

    fn add_violation(&mut self, description: String, session: Option<&Tag>, time: Duration) {
        self.violations.push(Violation {
            description,
            session: session.cloned(),
            time,
        });
    }
}

impl Stamp {
    /// Parses the text of a result.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::from_value(&serde_json::from_str(text).ok()?)
    }

    /// Reads the stamp in a result or in the data of a notification.
    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        Some(Self {
            mark: value["mark"].as_str()?.to_owned(),
            pid: u32::try_from(value["pid"].as_u64()?).ok()?,
            login: value["login"].as_str().map(str::to_owned),
        })
    }
}

impl ServerNotification {
    /// The mark of the call that caused it.
    pub(super) fn mark(&self) -> &str {
        &self.stamp.mark
    }

    /// Reads a message that a session received; `None` if it is not a notification of `test_stamp`.
    pub(crate) fn from_message(session: &str, message: &Value) -> Option<Self> {
        let data = (message["method"] == "notifications/message").then(|| &message["params"]["data"])?;
        Some(Self {
            session: session.to_owned(),
            stamp: Stamp::from_value(data)?,
        })
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls answered (median {:?}), {} failed with a killed child, {} lost with a connection, {} notifications, {} missed",
            self.answered, self.median, self.excused, self.lost, self.notifications, self.missed
        )
    }
}

/// Checks that an answer belongs to its call and comes from the only child that took it.
fn check_answer(ledger: &Ledger, call: &Call, stamp: &Stamp) -> Result<(), &'static str> {
    match ledger.takers(&call.mark) {
        [taker] if taker.pid == stamp.pid => {}
        [] => return Err("answered although no child took it"),
        [_] => return Err("answered by another child than took it"),
        _ => return Err("taken more than once"),
    }
    if stamp.mark != call.mark {
        return Err("got the answer to another call");
    }
    match call.login {
        Some(login) if stamp.login.as_deref() != Some(login) => Err("answered by a child with another user's token"),
        _ => Ok(()),
    }
}

/// True if the child that took this call was replaced during it. The broker logs the replacement
/// shortly afterwards, on a busy machine much later. A late line counts only if another child took
/// the session's next call, since sessions rotate every second, so that any second has a rotation.
fn was_replaced(ledger: &Ledger, call: &Call, tag: &Tag) -> bool {
    const USUAL_LOG_DELAY: Duration = Duration::from_millis(100);
    const LONGEST_LOG_DELAY: Duration = Duration::from_secs(1);
    let lost_child = |log_delay| ledger.lost_child(tag, call.start, call.end, log_delay);
    lost_child(USUAL_LOG_DELAY) || (lost_child(LONGEST_LOG_DELAY) && was_last_of_child(ledger, call))
}

/// True if another child took the session's next call.
fn was_last_of_child(ledger: &Ledger, call: &Call) -> bool {
    let (_, number) = call.mark.rsplit_once('.').unwrap_or_default();
    let Ok(number) = number.parse::<u64>() else {
        return false;
    };
    let next = format!("{}.{}", call.session, number + 1);
    matches!((ledger.takers(&call.mark), ledger.takers(&next)), ([this], [next]) if this.pid != next.pid)
}

/// True if the request was sent while the broker closed its connection, so that the client got no
/// response.
fn is_lost(ledger: &Ledger, stops: &[BrokerStop], call: &Call) -> bool {
    // The errors of Node and of reqwest. The Python SDK ends with the first lost request, so the
    // Python client has an error of its own.
    const NO_RESPONSE_ERRORS: [&str; 3] = ["fetch failed", "error sending request", "lost with its connection"];
    let CallOutcome::Failed(error) = &call.outcome else {
        return false;
    };
    call.keeps_connection
        && NO_RESPONSE_ERRORS.iter().any(|text| error.contains(text))
        && ledger.takers(&call.mark).is_empty()
        && stops
            .iter()
            .any(|stop| stop.start <= call.end && call.start <= stop.end)
}

/// Checks that a kill excuses a failed call.
fn check_failure(
    ledger: &Ledger,
    kills: &[Kill],
    call: &Call,
    error: &str,
    tag: Option<&Tag>,
    used_kills: &mut HashSet<(u32, Duration)>,
) -> Result<(), &'static str> {
    if !CHILD_ENDED_ERRORS.iter().any(|text| error.contains(text)) {
        return Err("failed with another error than the end of the child");
    }
    let is_during_call = |kill: &&Kill| kill.issued <= call.end && call.start <= kill.exited;
    let mut kills = kills.iter().filter(is_during_call);
    let kill = match ledger.takers(&call.mark) {
        [taker] => kills
            .find(|kill| kill.pid == taker.pid && kill.tag == taker.tag)
            .ok_or("failed although the child that took it was not killed")?,
        [] => kills
            .find(|kill| Some(&kill.tag) == tag && !used_kills.contains(&(kill.pid, kill.issued)))
            .ok_or("failed although no child of the session was killed")?,
        _ => return Err("taken more than once"),
    };
    if used_kills.insert((kill.pid, kill.issued)) {
        Ok(())
    } else {
        Err("failed by a kill that explains another failed call")
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn notification_may_be_missing_while_child_is_replaced() {
        let rotated =
            r#"{"timestamp":"1970-01-01T00:00:05.000000Z","message":"session moved to a new backend","session":"aa"}"#;
        for (times, missed) in [([4_990, 5_010], 1), ([4_000, 4_800], 0), ([5_001, 5_010], 0)] {
            let calls = [Call {
                notifies: true,
                ..call("a.1", times, CallOutcome::Answered(stamp("a.1", 7)))
            }];
            let oracle = Oracle::check(&ledger(&[rotated]), &[], &[], &calls, &[]);
            assert_eq!(
                (oracle.missed, oracle.violations.len()),
                (missed, 1 - missed),
                "{times:?}"
            );
        }
    }

    #[test]
    fn late_log_of_replacement_counts_for_last_call_of_child() {
        let rotated =
            r#"{"timestamp":"1970-01-01T00:00:05.000000Z","message":"session moved to a new backend","session":"aa"}"#;
        let by_another = r#"{"message":"took a.2 pid=8","tag":"aa"}"#;
        let by_same = r#"{"message":"took a.2 pid=7","tag":"aa"}"#;
        for (next, times, missed) in [
            (by_another, [4_000, 4_800], 1),
            (by_another, [3_000, 3_800], 0),
            (by_same, [4_000, 4_800], 0),
        ] {
            let calls = [Call {
                notifies: true,
                ..call("a.1", times, CallOutcome::Answered(stamp("a.1", 7)))
            }];
            let oracle = Oracle::check(&ledger(&[next, rotated]), &[], &[], &calls, &[]);
            assert_eq!(
                (oracle.missed, oracle.violations.len()),
                (missed, 1 - missed),
                "{next} {times:?}"
            );
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
}
