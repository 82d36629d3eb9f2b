//! Which failures are excused, and what else is wrong.
//!
//! A call that failed is excused only if it was in flight on a child of its own session while that child was killed. Which child
//! that was is in the ledger; a call that is not in it reached none, and then a child of the session was killed during the call, and that kill
//! excuses no other. Whatever excuses it, the client was told by an answer to its request that the child has ended.
//!
//! A client that keeps its connections may send a request in the very moment in which a broker that stops closes one, and then it is
//! lost by the rules of HTTP/1.1 (RFC 9112 section 9.3.1). That is counted apart: no child has seen the request, a stop was under way, and there
//! was no answer at all.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde_json::Value;

use super::{
    faults::{Kill, Stop},
    ledger::{Ledger, Tag},
};

/// A call that is over.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The session as the client names it; marks of its calls begin with it and a full stop.
    pub(crate) session: String,
    pub(crate) mark: String,
    /// Whose token the child has to hold, if it was asked.
    pub(crate) login: Option<&'static str>,
    /// Whether the child says so beside the answer.
    pub(crate) announced: bool,
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    /// Whether its client makes more than one call on a connection.
    pub(crate) keeps_connection: bool,
    pub(crate) outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Answered(Stamp),
    /// What was said instead.
    Failed(String),
}

/// What `test_stamp` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    mark: String,
    pid: u32,
    login: Option<String>,
}

/// A message of a child beside its answers, and the session that it came to.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) session: String,
    pub(crate) stamp: Stamp,
}

/// What a run comes to.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) answered: usize,
    excused: usize,
    /// Requests that were lost with a connection that was just closing.
    pub(crate) lost: usize,
    heard: usize,
    /// Messages that went with the stream of a child that was replaced.
    missed: usize,
    /// Half of the calls that were answered took no longer.
    pub(crate) median: Duration,
    pub(crate) faults: Vec<Fault>,
}

/// Something that must not be.
#[derive(Debug)]
pub(crate) struct Fault {
    what: String,
    session: Option<Tag>,
    at: Duration,
}

/// How a client is told that the child of its session has ended, or that the one that it waited for did not start.
const CHILD_IS_GONE: [&str; 2] = [
    "the MCP server of this session has ended",
    "The MCP server did not start",
];

/// How many faults are reported, and how many of them with the log of their session.
const REPORTED: usize = 20;
const IN_FULL: usize = 3;

impl Oracle {
    /// Judges a run.
    pub(crate) fn new(ledger: &Ledger, kills: &[Kill], stops: &[Stop], calls: &[Call], heard: &[Heard]) -> Self {
        let mut oracle = Self {
            heard: heard.len(),
            ..Self::default()
        };
        let tags = oracle.tags(ledger);
        let mut spent = HashSet::new();
        for call in calls {
            let tag = tags.get(call.session.as_str());
            if is_lost(ledger, stops, call) {
                oracle.lost += 1;
                continue;
            }
            let judged = match &call.outcome {
                Outcome::Answered(stamp) => {
                    oracle.answered += 1;
                    answered(ledger, call, stamp)
                }
                Outcome::Failed(said) => {
                    oracle.excused += 1;
                    failed(ledger, kills, call, said, tag, &mut spent)
                }
            };
            if let Err(why) = judged {
                oracle.excused -= usize::from(matches!(call.outcome, Outcome::Failed(_)));
                oracle.faults.push(Fault {
                    what: format!("{why}: {call:?}"),
                    session: tag.cloned(),
                    at: call.ended,
                });
            }
        }
        oracle.listen(ledger, calls, heard, &tags);
        let answered = calls.iter().filter(|call| matches!(call.outcome, Outcome::Answered(_)));
        let mut times: Vec<Duration> = answered.map(|call| call.ended.saturating_sub(call.began)).collect();
        times.sort_unstable();
        oracle.median = times.get(times.len() / 2).copied().unwrap_or_default();
        oracle
    }

    /// The faults, with what the log says of the sessions.
    pub(crate) fn report(&self, ledger: &Ledger) -> String {
        let mut report = format!("{} faults\n", self.faults.len());
        for (number, fault) in self.faults.iter().take(REPORTED).enumerate() {
            report += &format!("{}\n", fault.what);
            let session = fault.session.iter().filter(|_| number < IN_FULL);
            for line in session.flat_map(|tag| ledger.around(tag, fault.at)) {
                report += &format!("    {line}\n");
            }
        }
        report
    }

    /// The sessions' names in the log, by the calls that they took: all calls of a session in one, and only those.
    fn tags(&mut self, ledger: &Ledger) -> HashMap<String, Tag> {
        let mut tags: HashMap<String, Tag> = HashMap::new();
        let mut sessions: BTreeMap<Tag, String> = BTreeMap::new();
        for (mark, taken) in ledger.marks() {
            let session = mark.rsplit_once('.').map_or(mark.as_str(), |(session, _)| session);
            for taken in taken {
                let tag = tags.entry(session.to_owned()).or_insert_with(|| taken.tag.clone());
                let owner = sessions.entry(taken.tag.clone()).or_insert_with(|| session.to_owned());
                if *tag != taken.tag || owner != session {
                    self.faults.push(Fault {
                        what: format!("{mark} was taken in the session of {owner}"),
                        session: Some(taken.tag.clone()),
                        at: Duration::ZERO,
                    });
                }
            }
        }
        tags
    }

    /// What a child said beside its answers came to its own session, and once. It may be missed only if the child was replaced during the
    /// call: its listeners were sent away then, and what it said at that moment has gone with them.
    fn listen(&mut self, ledger: &Ledger, calls: &[Call], heard: &[Heard], tags: &HashMap<String, Tag>) {
        let mut times: HashMap<&str, usize> = HashMap::new();
        for heard in heard {
            let mark = heard.stamp.mark.as_str();
            *times.entry(mark).or_default() += 1;
            if mark
                .rsplit_once('.')
                .is_none_or(|(session, _)| session != heard.session)
            {
                self.faults.push(Fault {
                    what: format!("{} heard {mark}", heard.session),
                    session: tags.get(&heard.session).cloned(),
                    at: Duration::ZERO,
                });
            }
        }
        for call in calls.iter().filter(|call| call.announced) {
            let times = times.get(call.mark.as_str()).copied().unwrap_or_default();
            let must = usize::from(matches!(call.outcome, Outcome::Answered(_)));
            let tag = tags.get(&call.session);
            if times < must && tag.is_some_and(|tag| replaced(ledger, call, tag)) {
                self.missed += 1;
            } else if times > 1 || times < must {
                self.faults.push(Fault {
                    what: format!("its announcement came {times} times: {call:?}"),
                    session: tags.get(&call.session).cloned(),
                    at: call.ended,
                });
            }
        }
    }
}

impl Stamp {
    /// Of the text of a result.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::of(&serde_json::from_str(text).ok()?)
    }

    /// Of what a child says.
    pub(crate) fn of(said: &Value) -> Option<Self> {
        Some(Self {
            mark: said["mark"].as_str()?.to_owned(),
            pid: u32::try_from(said["pid"].as_u64()?).ok()?,
            login: said["login"].as_str().map(str::to_owned),
        })
    }
}

impl Heard {
    /// The mark of the call that it is about.
    pub(super) fn mark(&self) -> &str {
        &self.stamp.mark
    }

    /// Of a message that came to a session; `None` if it is no announcement.
    pub(crate) fn of(session: &str, message: &Value) -> Option<Self> {
        let said = (message["method"] == "notifications/message").then(|| &message["params"]["data"])?;
        Some(Self {
            session: session.to_owned(),
            stamp: Stamp::of(said)?,
        })
    }
}

impl fmt::Display for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls answered (half of them within {:?}), {} failed with the child that was killed, {} lost with a connection, {} messages beside them, {} missed",
            self.answered, self.median, self.excused, self.lost, self.heard, self.missed
        )
    }
}

/// An answer is the one to this call, by the one child that took it.
fn answered(ledger: &Ledger, call: &Call, stamp: &Stamp) -> Result<(), &'static str> {
    match ledger.took(&call.mark) {
        [taken] if taken.pid == stamp.pid => {}
        [] => return Err("answered by nobody"),
        [_] => return Err("answered by another than took it"),
        _ => return Err("made more than once"),
    }
    if stamp.mark != call.mark {
        return Err("the answer to another call");
    }
    match call.login {
        Some(login) if stamp.login.as_deref() != Some(login) => Err("by a child with the token of another"),
        _ => Ok(()),
    }
}

/// The child that took this call was replaced during it. The log tells so a moment later, and where the broker had no time to write it,
/// a good deal later: then it counts only if the next call of the session was another child's, since sessions that move
/// every second have moved within any second.
fn replaced(ledger: &Ledger, call: &Call, tag: &Tag) -> bool {
    const AFTERWARDS: Duration = Duration::from_millis(100);
    const LATE: Duration = Duration::from_secs(1);
    let changed = |afterwards| ledger.changed(tag, call.began, call.ended, afterwards);
    changed(AFTERWARDS) || (changed(LATE) && was_the_last(ledger, call))
}

/// The next call of the session was taken by another child than this one.
fn was_the_last(ledger: &Ledger, call: &Call) -> bool {
    let (_, turn) = call.mark.rsplit_once('.').unwrap_or_default();
    let Ok(turn) = turn.parse::<u64>() else {
        return false;
    };
    let next = format!("{}.{}", call.session, turn + 1);
    matches!((ledger.took(&call.mark), ledger.took(&next)), ([this], [next]) if this.pid != next.pid)
}

/// The request was sent while its connection closed: its client says that it got no answer, as each SDK does.
fn is_lost(ledger: &Ledger, stops: &[Stop], call: &Call) -> bool {
    // Of Node and of reqwest. The Python SDK ends with the first request that it loses; there the client itself says it.
    const NO_ANSWER: [&str; 3] = ["fetch failed", "error sending request", "lost with its connection"];
    let Outcome::Failed(said) = &call.outcome else {
        return false;
    };
    call.keeps_connection
        && NO_ANSWER.iter().any(|told| said.contains(told))
        && ledger.took(&call.mark).is_empty()
        && stops
            .iter()
            .any(|stop| stop.begun <= call.ended && call.began <= stop.over)
}

/// A failure is excused.
fn failed(
    ledger: &Ledger,
    kills: &[Kill],
    call: &Call,
    said: &str,
    tag: Option<&Tag>,
    spent: &mut HashSet<(u32, Duration)>,
) -> Result<(), &'static str> {
    if !CHILD_IS_GONE.iter().any(|told| said.contains(told)) {
        return Err("failed otherwise than by the end of the child");
    }
    let during = |kill: &&Kill| kill.issued <= call.ended && call.began <= kill.gone;
    let kill = match ledger.took(&call.mark) {
        [taken] => kills
            .iter()
            .filter(during)
            .find(|kill| kill.pid == taken.pid && kill.tag == taken.tag)
            .ok_or("failed although the child that took it was not killed")?,
        [] => kills
            .iter()
            .filter(during)
            .find(|kill| Some(&kill.tag) == tag && !spent.contains(&(kill.pid, kill.issued)))
            .ok_or("failed although no child of the session was killed")?,
        _ => return Err("made more than once"),
    };
    if spent.insert((kill.pid, kill.issued)) {
        Ok(())
    } else {
        Err("failed by a kill that has failed another call")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "200 OK: the MCP server of this session has ended";

    /// Sessions `a` and `b`; the child 7 of `a` has taken two calls and 8 none, the child 9 of `b` has taken one.
    fn ledger(more: &[&str]) -> Ledger {
        let lines = [
            r#"{"message":"child started","tag":"aa","pid":7}"#,
            r#"{"message":"child started","tag":"aa","pid":8}"#,
            r#"{"message":"child started","tag":"bb","pid":9}"#,
            r#"{"message":"took a.0 pid=7","tag":"aa"}"#,
            r#"{"message":"took a.1 pid=7","tag":"aa"}"#,
            r#"{"message":"took b.0 pid=9","tag":"bb"}"#,
        ];
        Ledger::of(&[&lines, more].concat())
    }

    /// Killed at 5 s.
    fn kill(pid: u32, tag: &str) -> Kill {
        Kill {
            pid,
            tag: tag.to_owned(),
            issued: Duration::from_millis(5_000),
            gone: Duration::from_millis(5_010),
        }
    }

    fn call(mark: &str, times: [u64; 2], outcome: Outcome) -> Call {
        Call {
            session: mark.split('.').next().unwrap().to_owned(),
            mark: mark.to_owned(),
            login: None,
            announced: false,
            began: Duration::from_millis(times[0]),
            ended: Duration::from_millis(times[1]),
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

    /// How many faults there are if this call has failed in the time in which these were killed.
    fn faults_of_failed(mark: &str, times: [u64; 2], kills: &[Kill]) -> usize {
        let calls = [call(mark, times, Outcome::Failed(SAID.to_owned()))];
        Oracle::new(&ledger(&[]), kills, &[], &calls, &[]).faults.len()
    }

    #[test]
    fn a_call_may_fail_with_the_child_that_took_it_and_with_no_other() {
        let during = [4_990, 5_020];
        assert_eq!(faults_of_failed("a.1", during, &[kill(7, "aa")]), 0);
        for kills in [&[][..], &[kill(8, "aa")], &[kill(9, "bb")]] {
            assert_eq!(faults_of_failed("a.1", during, kills), 1, "{kills:?}");
        }
    }

    #[test]
    fn a_kill_before_or_after_a_call_excuses_nothing() {
        for times in [[5_011, 5_020], [4_980, 4_999]] {
            for mark in ["a.1", "a.2"] {
                assert_eq!(faults_of_failed(mark, times, &[kill(7, "aa")]), 1, "{mark} {times:?}");
            }
        }
    }

    #[test]
    fn a_call_that_nobody_took_may_fail_with_a_child_of_its_session_and_each_kill_counts_once() {
        let during = [4_990, 5_020];
        assert_eq!(faults_of_failed("a.2", during, &[kill(8, "aa")]), 0);
        assert_eq!(faults_of_failed("a.2", during, &[kill(9, "bb")]), 1);
        let failed = |mark| call(mark, during, Outcome::Failed(SAID.to_owned()));
        let calls = [failed("a.1"), failed("a.2")];
        let oracle = Oracle::new(&ledger(&[]), &[kill(7, "aa")], &[], &calls, &[]);
        assert_eq!((oracle.faults.len(), oracle.excused), (1, 1));
    }

    #[test]
    fn whatever_is_killed_a_client_is_told_so_and_nothing_else() {
        for said in ["503 Service Unavailable: try again later", "404 Not Found", "no answer"] {
            let calls = [call("a.1", [4_990, 5_020], Outcome::Failed(said.to_owned()))];
            let oracle = Oracle::new(&ledger(&[]), &[kill(7, "aa")], &[], &calls, &[]);
            assert_eq!(oracle.faults.len(), 1, "{said}");
        }
    }

    #[test]
    fn a_request_is_lost_only_with_a_kept_connection_while_the_broker_stops() {
        let stops = [Stop {
            begun: Duration::from_millis(5_000),
            over: Duration::from_millis(6_000),
        }];
        let lost = |mark, times, keeps_connection, said: &str| {
            let calls = [Call {
                keeps_connection,
                ..call(mark, times, Outcome::Failed(said.to_owned()))
            }];
            let oracle = Oracle::new(&ledger(&[]), &[], &stops, &calls, &[]);
            assert_eq!(oracle.lost + oracle.faults.len(), 1);
            oracle.lost == 1
        };
        let during = [5_990, 6_020];
        assert!(lost("a.2", during, true, "TypeError: fetch failed"));
        assert!(lost(
            "a.2",
            during,
            true,
            "MCPError: lost with its connection: ReadError: "
        ));
        assert!(!lost("a.2", during, false, "TypeError: fetch failed"));
        assert!(!lost("a.2", during, true, "503 Service Unavailable"));
        assert!(!lost("a.1", during, true, "TypeError: fetch failed"), "it was taken");
        assert!(!lost("a.2", [6_010, 6_020], true, "TypeError: fetch failed"));
    }

    #[test]
    fn an_answer_is_by_the_child_that_took_the_call_and_to_this_call() {
        let faults = |stamp, login| {
            let calls = [Call {
                login,
                ..call("a.1", [0, 1], Outcome::Answered(stamp))
            }];
            Oracle::new(&ledger(&[]), &[], &[], &calls, &[]).faults.len()
        };
        assert_eq!(faults(stamp("a.1", 7), Some("alice")), 0);
        assert_eq!(faults(stamp("a.1", 7), Some("bob")), 1);
        assert_eq!(faults(stamp("a.1", 8), None), 1);
        assert_eq!(faults(stamp("a.0", 7), None), 1);
    }

    #[test]
    fn a_call_is_made_once_and_in_its_own_session() {
        let calls = [call("a.1", [0, 1], Outcome::Answered(stamp("a.1", 7)))];
        for (line, faults) in [
            (r#"{"message":"took a.1 pid=8","tag":"aa"}"#, 1),
            (r#"{"message":"took a.2 pid=8","tag":"aa"}"#, 0),
            (r#"{"message":"took b.1 pid=8","tag":"aa"}"#, 1),
        ] {
            let found = Oracle::new(&ledger(&[line]), &[], &[], &calls, &[]).faults.len();
            assert!(found >= faults && (found == 0) == (faults == 0), "{line}: {found}");
        }
    }

    #[test]
    fn an_announcement_may_be_missed_while_its_child_is_replaced() {
        let moved =
            r#"{"timestamp":"1970-01-01T00:00:05.000000Z","message":"session moved to a new backend","session":"aa"}"#;
        for (times, missed) in [([4_990, 5_010], 1), ([4_000, 4_800], 0), ([5_001, 5_010], 0)] {
            let calls = [Call {
                announced: true,
                ..call("a.1", times, Outcome::Answered(stamp("a.1", 7)))
            }];
            let oracle = Oracle::new(&ledger(&[moved]), &[], &[], &calls, &[]);
            assert_eq!((oracle.missed, oracle.faults.len()), (missed, 1 - missed), "{times:?}");
        }
    }

    #[test]
    fn a_replacement_that_is_told_late_counts_for_the_last_call_of_a_child() {
        let moved =
            r#"{"timestamp":"1970-01-01T00:00:05.000000Z","message":"session moved to a new backend","session":"aa"}"#;
        let by_another = r#"{"message":"took a.2 pid=8","tag":"aa"}"#;
        let by_the_same = r#"{"message":"took a.2 pid=7","tag":"aa"}"#;
        for (next, times, missed) in [
            (by_another, [4_000, 4_800], 1),
            (by_another, [3_000, 3_800], 0),
            (by_the_same, [4_000, 4_800], 0),
        ] {
            let calls = [Call {
                announced: true,
                ..call("a.1", times, Outcome::Answered(stamp("a.1", 7)))
            }];
            let oracle = Oracle::new(&ledger(&[next, moved]), &[], &[], &calls, &[]);
            assert_eq!(
                (oracle.missed, oracle.faults.len()),
                (missed, 1 - missed),
                "{next} {times:?}"
            );
        }
    }

    #[test]
    fn an_announcement_comes_once_and_to_its_own_session() {
        let heard = |session: &str| Heard {
            session: session.to_owned(),
            stamp: stamp("a.1", 7),
        };
        let calls = [Call {
            announced: true,
            ..call("a.1", [0, 1], Outcome::Answered(stamp("a.1", 7)))
        }];
        for (heard, faults) in [
            (vec![heard("a")], 0),
            (vec![], 1),
            (vec![heard("a"), heard("a")], 1),
            (vec![heard("b")], 1),
        ] {
            let found = Oracle::new(&ledger(&[]), &[], &[], &calls, &heard).faults.len();
            assert_eq!(found, faults, "{heard:?}");
        }
    }
}
