//! What the broker's log says of children and sessions: which child is whose, who took which call, when a session was moved.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use serde_json::Value;
use testkit::broker::Log;

/// A session as the log names it.
pub(crate) type Tag = String;

/// The log, read as far as it has come.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    /// Whose child a process was, by the latest start with its id.
    owners: HashMap<u32, Tag>,
    taken: HashMap<String, Vec<Taken>>,
    /// How many calls a process has taken, by its id and since its start.
    calls: HashMap<u32, usize>,
    /// How many children of a session have taken a second call, and so have answered the first.
    proven: HashMap<Tag, usize>,
}

/// A call that reached a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) tag: Tag,
    pub(crate) pid: u32,
}

/// How often sessions were moved to a fresh child.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) moves: usize,
    pub(crate) revivals: usize,
    /// The time in which sessions had a child, of all sessions together.
    awake: Duration,
    /// Half of the children that were replaced had not been there for longer.
    pub(crate) median: Duration,
}

#[derive(Debug)]
struct Entry {
    /// Since midnight.
    at: Duration,
    tag: Tag,
    what: What,
    line: String,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    Moved,
    Revived,
    /// The session has no child from now on.
    Asleep,
    /// No session has.
    Stopping,
    Other,
}

const DAY: u64 = 24 * 3600;

impl Ledger {
    /// Reads on.
    pub(crate) fn read(&mut self, log: &Log) {
        for line in log.after(self.entries.len()) {
            self.add(line);
        }
    }

    /// Whose child a process is.
    pub(crate) fn owner(&self, pid: u32) -> Option<&Tag> {
        self.owners.get(&pid)
    }

    /// How many children of a session have answered a call.
    pub(crate) fn proven(&self, tag: &Tag) -> usize {
        self.proven.get(tag).copied().unwrap_or_default()
    }

    /// The children that took a call: one, if all is well.
    pub(crate) fn took(&self, mark: &str) -> &[Taken] {
        self.taken.get(mark).map_or(&[], Vec::as_slice)
    }

    /// All calls that were taken.
    pub(crate) fn marks(&self) -> impl Iterator<Item = (&String, &Vec<Taken>)> {
        self.taken.iter()
    }

    /// What the log says of a session around a time.
    pub(crate) fn around(&self, tag: &str, at: Duration) -> Vec<&str> {
        const NEAR: Duration = Duration::from_secs(3);
        let at = Duration::from_secs(at.as_secs() % DAY);
        let near =
            |entry: &&Entry| entry.tag == tag && entry.at.abs_diff(at) < NEAR && !entry.line.contains("INFO tool call");
        self.entries
            .iter()
            .filter(near)
            .map(|entry| entry.line.as_str())
            .collect()
    }

    /// Whether a session lost its child to another one, or to sleep, in a time. The log is written after the deed: by so much
    /// at the most.
    pub(crate) fn changed(&self, tag: &str, from: Duration, to: Duration, afterwards: Duration) -> bool {
        let from = from - Duration::from_secs(from.as_secs() / DAY * DAY);
        let to = to - Duration::from_secs(to.as_secs() / DAY * DAY) + afterwards;
        self.entries.iter().any(|entry| {
            entry.tag == tag && matches!(entry.what, What::Moved | What::Asleep) && (from..=to).contains(&entry.at)
        })
    }

    /// How often sessions were moved, measured where it is known how long they had a child.
    pub(crate) fn moves_a_second(&self) -> Rate {
        let mut rate = Rate::default();
        let mut since: BTreeMap<&Tag, Duration> = BTreeMap::new();
        let mut lives = Vec::new();
        for entry in &self.entries {
            let passed = |since: Duration| between(since, entry.at);
            match entry.what {
                What::Moved | What::Revived => {
                    rate.revivals += usize::from(entry.what == What::Revived);
                    if let Some(since) = since.insert(&entry.tag, entry.at) {
                        rate.moves += 1;
                        rate.awake += passed(since);
                        lives.push(passed(since));
                    }
                }
                What::Asleep => rate.awake += since.remove(&entry.tag).map_or(Duration::ZERO, passed),
                What::Stopping => {
                    let all = std::mem::take(&mut since);
                    rate.awake += all.into_values().map(passed).sum();
                }
                What::Other => {}
            }
        }
        lives.sort_unstable();
        rate.median = lives.get(lives.len() / 2).copied().unwrap_or_default();
        rate
    }

    fn add(&mut self, line: String) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |key: &str| event[key].as_str().unwrap_or_default();
        let tag = [text("tag"), text("session")].concat();
        let message = text("message");
        let what = match message {
            "session moved to a new backend" => What::Moved,
            "session revived" => What::Revived,
            "session is dormant: it was idle"
            | "session is dormant: its backend died"
            | "session is dormant: its credential expired"
            | "session ended" => What::Asleep,
            "shutting down" => What::Stopping,
            _ => What::Other,
        };
        if message == "child started" {
            let pid = event["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            let pid = pid.expect("a child has an id");
            self.owners.insert(pid, tag.clone());
            self.calls.remove(&pid);
        }
        if let Some((mark, pid)) = message.strip_prefix("took ").and_then(|rest| rest.split_once(" pid=")) {
            let pid = pid.parse().expect("a stamp names its process");
            let calls = self.calls.entry(pid).or_default();
            *calls += 1;
            if *calls == 2 {
                *self.proven.entry(tag.clone()).or_default() += 1;
            }
            let taken = Taken { tag: tag.clone(), pid };
            self.taken.entry(mark.to_owned()).or_default().push(taken);
        }
        let at = time_of_day(text("timestamp")).unwrap_or_default();
        self.entries.push(Entry { at, tag, what, line });
    }
}

impl Rate {
    /// How many moves a session with a child makes in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.moves as f64 / self.awake.as_secs_f64().max(1.0)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (moves, awake) = (self.moves, self.awake.as_secs());
        write!(
            f,
            "{moves} moves in {awake} s of sessions with a child, {:.2} a second (every {:?} by the median), and {} revivals",
            self.per_second(),
            self.median,
            self.revivals
        )
    }
}

/// From one time of day to a later one, perhaps on the next day.
fn between(from: Duration, to: Duration) -> Duration {
    to.checked_sub(from)
        .unwrap_or_else(|| to + Duration::from_secs(DAY) - from)
}

/// Of a time as the log has it: `2026-01-31T12:34:56.789012Z`.
fn time_of_day(timestamp: &str) -> Option<Duration> {
    let (_, time) = timestamp.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split(':');
    let (hours, minutes): (f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    Duration::try_from_secs_f64((hours * 60.0 + minutes) * 60.0 + seconds).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Ledger {
        /// A ledger of these lines.
        pub(crate) fn of(lines: &[&str]) -> Self {
            let mut ledger = Self::default();
            lines.iter().for_each(|line| ledger.add((*line).to_owned()));
            ledger
        }
    }

    /// A line of the log, so many seconds before midnight.
    fn line(at: &str, tag: &str, message: &str) -> String {
        format!(r#"{{"timestamp":"2026-01-31T{at}Z","session":"{tag}","message":"{message}"}}"#)
    }

    #[test]
    fn moves_count_while_a_session_has_a_child() {
        let lines = [
            line("23:59:58.000000", "a", "session revived"),
            line("23:59:59.000000", "a", "session moved to a new backend"),
            line("00:00:00.500000", "a", "session moved to a new backend"),
            line("00:00:01.000000", "a", "session is dormant: it was idle"),
            line("00:00:09.000000", "a", "session revived"),
            line("00:00:09.500000", "", "shutting down"),
            line("00:00:30.000000", "a", "session moved to a new backend"),
        ];
        let rate = Ledger::of(&lines.each_ref().map(String::as_str)).moves_a_second();
        assert_eq!((rate.moves, rate.revivals), (2, 2));
        assert_eq!(rate.awake, Duration::from_millis(3500));
    }

    #[test]
    fn a_call_was_taken_by_the_child_that_says_so() {
        let ledger = Ledger::of(&[
            r#"{"message":"child started","tag":"aa","pid":7}"#,
            r#"{"message":"took raw.1 pid=7","tag":"aa","target":"child"}"#,
        ]);
        assert_eq!(ledger.owner(7).unwrap(), "aa");
        let taken = Taken {
            tag: "aa".to_owned(),
            pid: 7,
        };
        assert_eq!((ledger.took("raw.1"), ledger.took("raw.2")), (&[taken][..], &[][..]));
    }
}
