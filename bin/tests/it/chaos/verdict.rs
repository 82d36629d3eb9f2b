//! Which failures are excused, and what else is wrong.
//!
//! A call that failed is excused only if it was in flight on a child of its own session while that child was killed. Which child
//! that was is in the book; a call that is not in it reached none, and then a child of the session was killed during the call, and that kill
//! excuses no other. Whatever excuses it, the client was told by an answer to its request that the child has ended.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    time::Duration,
};

use serde_json::Value;

use super::{
    book::{Book, Tag},
    havoc::Kill,
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
pub(crate) struct Verdict {
    pub(crate) answered: usize,
    excused: usize,
    heard: usize,
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
const CHILD_IS_GONE: [&str; 2] = ["the MCP server of this session has ended", "The server did not start"];

/// How many faults are reported, and how many of them with the log of their session.
const REPORTED: usize = 20;
const IN_FULL: usize = 3;

impl Verdict {
    /// Judges a run.
    pub(crate) fn new(book: &Book, kills: &[Kill], calls: &[Call], heard: &[Heard]) -> Self {
        let mut verdict = Self {
            heard: heard.len(),
            ..Self::default()
        };
        let tags = verdict.tags(book);
        let mut spent = HashSet::new();
        for call in calls {
            let tag = tags.get(call.session.as_str());
            let judged = match &call.outcome {
                Outcome::Answered(stamp) => {
                    verdict.answered += 1;
                    answered(book, call, stamp)
                }
                Outcome::Failed(said) => {
                    verdict.excused += 1;
                    failed(book, kills, call, said, tag, &mut spent)
                }
            };
            if let Err(why) = judged {
                verdict.excused -= usize::from(matches!(call.outcome, Outcome::Failed(_)));
                verdict.faults.push(Fault {
                    what: format!("{why}: {call:?}"),
                    session: tag.cloned(),
                    at: call.ended,
                });
            }
        }
        verdict.listen(calls, heard, &tags);
        verdict
    }

    /// The faults, with what the log says of the sessions.
    pub(crate) fn report(&self, book: &Book) -> String {
        let mut report = format!("{} faults\n", self.faults.len());
        for (number, fault) in self.faults.iter().take(REPORTED).enumerate() {
            report += &format!("{}\n", fault.what);
            let session = fault.session.iter().filter(|_| number < IN_FULL);
            for line in session.flat_map(|tag| book.around(tag, fault.at)) {
                report += &format!("    {line}\n");
            }
        }
        report
    }

    /// The sessions' names in the log, by the calls that they took: all calls of a session in one, and only those.
    fn tags(&mut self, book: &Book) -> HashMap<String, Tag> {
        let mut tags: HashMap<String, Tag> = HashMap::new();
        let mut sessions: BTreeMap<Tag, String> = BTreeMap::new();
        for (mark, taken) in book.marks() {
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

    /// What a child said beside its answers came to its own session, and once.
    fn listen(&mut self, calls: &[Call], heard: &[Heard], tags: &HashMap<String, Tag>) {
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
            if times > 1 || times < must {
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

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls answered, {} failed with the child that was killed, {} messages beside them",
            self.answered, self.excused, self.heard
        )
    }
}

/// An answer is the one to this call, by the one child that took it.
fn answered(book: &Book, call: &Call, stamp: &Stamp) -> Result<(), &'static str> {
    match book.took(&call.mark) {
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

/// A failure is excused.
fn failed(
    book: &Book,
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
    let kill = match book.took(&call.mark) {
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
