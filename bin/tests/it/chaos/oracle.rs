//! Checks the calls of a run: excuses the failures that a kill explains, and reports every other
//! violation.
//!
//! A failed call is excused only if it was in flight on a child of its own session at the kill of
//! that child. The ledger names the child. A call without an entry reached no child; then a kill of
//! some child of the session during the call excuses it. A kill excuses one call, or two if they
//! ask the user, since a client has two such calls in flight. In all cases the client must have got
//! a response that says that the child has ended.
//!
//! A call in which a child asks the user may also fail with a stop of the broker: the answer to the
//! question comes too late for the child. The client must have got a response on the stream that it
//! has resumed.
//!
//! A client that keeps its connections may send a request at the moment at which a stopping broker
//! closes the connection. By the rules of HTTP/1.1 the request is then lost (RFC 9112 section
//! 9.3.1). Such requests are counted separately: no child has seen the request, the broker was
//! stopping, and there was no response.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde_json::Value;

use super::{
    DRAIN_TIMEOUT,
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
    /// The child asks the user, and the answer to its question is the mark.
    pub(crate) asks: bool,
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
    /// The answer to its question.
    nonce: Option<String>,
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
    /// The answered calls with a question.
    pub(crate) questions: usize,
    excused: usize,
    /// Calls with a question that have ended with the broker.
    stopped: usize,
    /// Requests that were lost with a connection that was just closing.
    pub(crate) lost: usize,
    notifications: usize,
    /// Notifications that were lost with a broker that stopped.
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

/// The error of a raw client that has waited in vain for a response.
pub(super) const NO_RESPONSE: &str = "no response";

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
                    oracle.questions += usize::from(call.asks);
                    check_answer(ledger, call, stamp)
                }
                CallOutcome::Failed(error) if call.asks && has_stopped(stops, call) => {
                    oracle.stopped += 1;
                    check_response(error)
                }
                CallOutcome::Failed(error) if has_waited(ledger, stops, call, error) => {
                    oracle.stopped += 1;
                    Ok(())
                }
                CallOutcome::Failed(error) => {
                    check_failure(ledger, kills, call, error, tag, &mut used_kills).inspect(|()| oracle.excused += 1)
                }
            };
            if let Err(reason) = checked {
                oracle.add_violation(format!("{reason}: {call:?}"), tag, call.end);
            }
        }
        oracle.check_notifications(stops, calls, notifications, &tags);
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
    /// the broker stopped soon after the call, while the notification waited for the next stream of
    /// the client.
    fn check_notifications(
        &mut self,
        stops: &[BrokerStop],
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
            if count < minimum && stopped_soon_after(stops, call) {
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
            nonce: value["nonce"].as_str().map(str::to_owned),
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
            "{} calls answered ({} with a question, median {:?}), {} failed with a killed child, {} with a question \
             when the broker stopped, {} lost with a connection, {} notifications, {} missed",
            self.answered,
            self.questions,
            self.median,
            self.excused,
            self.stopped,
            self.lost,
            self.notifications,
            self.missed
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
    if call.asks && stamp.nonce.as_ref() != Some(&call.mark) {
        return Err("its child got another answer than that to its question");
    }
    match call.login {
        Some(login) if stamp.login.as_deref() != Some(login) => Err("answered by a child with another user's token"),
        _ => Ok(()),
    }
}

/// True if the broker stopped during a call.
fn has_stopped(stops: &[BrokerStop], call: &Call) -> bool {
    stops
        .iter()
        .any(|stop| stop.start <= call.end && call.start <= stop.end)
}

/// True if the broker stopped during a call, or before the client can have read a notification of
/// it. A client pauses between two streams.
fn stopped_soon_after(stops: &[BrokerStop], call: &Call) -> bool {
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    stops
        .iter()
        .any(|stop| stop.start <= call.end + LONGEST_PAUSE && call.start <= stop.end)
}

/// Checks that a failed call got a response.
fn check_response(error: &str) -> Result<(), &'static str> {
    if error.contains(NO_RESPONSE) {
        Err("got no response after the broker had stopped")
    } else {
        Ok(())
    }
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
        && has_stopped(stops, call)
}

/// True if the request has waited for a child for longer than the broker drains, as on a machine
/// that is busy. No child has got it, so its client may send it again.
fn has_waited(ledger: &Ledger, stops: &[BrokerStop], call: &Call, error: &str) -> bool {
    const SHUTTING_DOWN: &str = "Shutting down: try again later";
    let waited = call.end.saturating_sub(call.start);
    error.contains(SHUTTING_DOWN)
        && waited > DRAIN_TIMEOUT
        && ledger.takers(&call.mark).is_empty()
        && has_stopped(stops, call)
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
            .find(|kill| Some(&kill.tag) == tag && (call.asks || !used_kills.contains(&(kill.pid, kill.issued))))
            .ok_or("failed although no child of the session was killed")?,
        _ => return Err("taken more than once"),
    };
    // Two calls with questions may be in flight on one child.
    if used_kills.insert((kill.pid, kill.issued)) || call.asks {
        Ok(())
    } else {
        Err("failed by a kill that explains another failed call")
    }
}
