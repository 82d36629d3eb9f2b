//! The facts in the broker's log: the session of each child, the child that took each call, and the
//! rotations of each session.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::Duration,
};

use serde_json::Value;
use testkit::broker::Log;

/// The name of a session in the log.
pub(crate) type Tag = String;

/// The content of the log so far.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: Vec<Entry>,
    /// The session of each child, by process id. The latest start counts.
    owners: HashMap<u32, Tag>,
    /// The children that took each call, by its mark.
    taken: HashMap<String, Vec<TakenCall>>,
    /// The number of calls that a process has taken since its start, by process id.
    calls: HashMap<u32, usize>,
    /// The number of a session's children that have taken a third call, and so have answered one,
    /// since no client has more than two calls in flight.
    proven: HashMap<Tag, usize>,
}

/// A call that reached a child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TakenCall {
    pub(crate) tag: Tag,
    pub(crate) pid: u32,
}

/// The frequency of rotations: replacements of a living child by a new one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RotationStats {
    pub(crate) rotations: usize,
    pub(crate) revivals: usize,
    /// The time with a child, summed over all sessions.
    attached: Duration,
    /// The median age of the replaced children.
    pub(crate) median_age: Duration,
}

#[derive(Debug)]
struct Entry {
    /// The time since midnight.
    time: Duration,
    tag: Tag,
    event: LogEvent,
    line: String,
}

#[derive(Debug, PartialEq, Eq)]
enum LogEvent {
    Rotated,
    Revived,
    /// The session has lost its child.
    Detached,
    /// All sessions lose their children.
    ShuttingDown,
    Other,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Ledger {
    /// Reads the new lines of the log.
    pub(crate) fn read(&mut self, log: &Log) {
        for line in log.after(self.entries.len()) {
            self.add(line);
        }
    }

    /// The session of a child.
    pub(crate) fn owner(&self, pid: u32) -> Option<&Tag> {
        self.owners.get(&pid)
    }

    /// The number of a session's children that have answered a call.
    pub(crate) fn proven(&self, tag: &Tag) -> usize {
        self.proven.get(tag).copied().unwrap_or_default()
    }

    /// The children that took a call. More than one is an error.
    pub(crate) fn takers(&self, mark: &str) -> &[TakenCall] {
        self.taken.get(mark).map_or(&[], Vec::as_slice)
    }

    /// All calls that were taken, by their marks.
    pub(crate) fn taken_calls(&self) -> impl Iterator<Item = (&String, &Vec<TakenCall>)> {
        self.taken.iter()
    }

    /// The lines about a session around a time.
    pub(crate) fn around(&self, tag: &str, time: Duration) -> Vec<&str> {
        const WINDOW: Duration = Duration::from_secs(3);
        let time = Duration::from_secs(time.as_secs() % DAY.as_secs());
        let is_near = |entry: &&Entry| {
            entry.tag == tag && entry.time.abs_diff(time) < WINDOW && !entry.line.contains("INFO tool call")
        };
        let near = self.entries.iter().filter(is_near);
        near.map(|entry| entry.line.as_str()).collect()
    }

    /// Counts rotations in the periods in which the log shows that a session had a child.
    pub(crate) fn rotation_stats(&self) -> RotationStats {
        let mut stats = RotationStats::default();
        let mut attached_since: BTreeMap<&Tag, Duration> = BTreeMap::new();
        let mut ages = Vec::new();
        for entry in &self.entries {
            let age = |since: Duration| between(since, entry.time);
            match entry.event {
                LogEvent::Rotated | LogEvent::Revived => {
                    stats.revivals += usize::from(entry.event == LogEvent::Revived);
                    if let Some(since) = attached_since.insert(&entry.tag, entry.time) {
                        stats.rotations += 1;
                        stats.attached += age(since);
                        ages.push(age(since));
                    }
                }
                LogEvent::Detached => stats.attached += attached_since.remove(&entry.tag).map_or(Duration::ZERO, age),
                LogEvent::ShuttingDown => {
                    let all = std::mem::take(&mut attached_since);
                    stats.attached += all.into_values().map(age).sum();
                }
                LogEvent::Other => {}
            }
        }
        ages.sort_unstable();
        stats.median_age = ages.get(ages.len() / 2).copied().unwrap_or_default();
        stats
    }

    fn add(&mut self, line: String) {
        let fields: Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |key: &str| fields[key].as_str().unwrap_or_default();
        let tag = [text("tag"), text("session")].concat();
        let message = text("message");
        let event = match message {
            "session moved to a new backend" => LogEvent::Rotated,
            "session revived" => LogEvent::Revived,
            "session is dormant: it was idle"
            | "session is dormant: its backend died"
            | "session is dormant: its credential expired"
            | "session ended" => LogEvent::Detached,
            "shutting down" => LogEvent::ShuttingDown,
            _ => LogEvent::Other,
        };
        if message == "child started" {
            let pid = fields["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            let pid = pid.expect("a child has a process id");
            self.owners.insert(pid, tag.clone());
            self.calls.remove(&pid);
        }
        if let Some((mark, pid)) = message.strip_prefix("took ").and_then(|rest| rest.split_once(" pid=")) {
            let pid = pid.parse().expect("the line has a process id");
            let calls = self.calls.entry(pid).or_default();
            *calls += 1;
            if *calls == 3 {
                *self.proven.entry(tag.clone()).or_default() += 1;
            }
            let taken = TakenCall { tag: tag.clone(), pid };
            self.taken.entry(mark.to_owned()).or_default().push(taken);
        }
        let time = time_of_day(text("timestamp")).unwrap_or_default();
        self.entries.push(Entry { time, tag, event, line });
    }
}

impl RotationStats {
    /// The rotations per second of a session with a child.
    pub(crate) fn per_second(&self) -> f64 {
        self.rotations as f64 / self.attached.as_secs_f64().max(1.0)
    }
}

impl fmt::Display for RotationStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rotations, attached) = (self.rotations, self.attached.as_secs());
        write!(
            f,
            "{rotations} rotations in {attached} s of sessions with a child, {:.2} per second (median age {:?}), and {} revivals",
            self.per_second(),
            self.median_age,
            self.revivals
        )
    }
}

/// The duration from one time of day to a later one, perhaps of the next day.
fn between(from: Duration, to: Duration) -> Duration {
    to.checked_sub(from).unwrap_or_else(|| to + DAY - from)
}

/// Parses the time of day in a timestamp of the log: `2026-01-31T12:34:56.789012Z`.
fn time_of_day(timestamp: &str) -> Option<Duration> {
    let (_, time) = timestamp.trim_end_matches('Z').split_once('T')?;
    let mut parts = time.split(':');
    let (hours, minutes): (f64, f64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let seconds: f64 = parts.next()?.parse().ok()?;
    Duration::try_from_secs_f64((hours * 60.0 + minutes) * 60.0 + seconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Ledger {
        pub(crate) fn from_lines(lines: &[&str]) -> Self {
            let mut ledger = Self::default();
            lines.iter().for_each(|line| ledger.add((*line).to_owned()));
            ledger
        }
    }

    /// A line of the log.
    fn line(time: &str, tag: &str, message: &str) -> String {
        format!(r#"{{"timestamp":"2026-01-31T{time}Z","session":"{tag}","message":"{message}"}}"#)
    }

    #[test]
    fn rotations_count_while_session_has_child() {
        let lines = [
            line("23:59:58.000000", "a", "session revived"),
            line("23:59:59.000000", "a", "session moved to a new backend"),
            line("00:00:00.500000", "a", "session moved to a new backend"),
            line("00:00:01.000000", "a", "session is dormant: it was idle"),
            line("00:00:09.000000", "a", "session revived"),
            line("00:00:09.500000", "", "shutting down"),
            line("00:00:30.000000", "a", "session moved to a new backend"),
        ];
        let stats = Ledger::from_lines(&lines.each_ref().map(String::as_str)).rotation_stats();
        assert_eq!((stats.rotations, stats.revivals), (2, 2));
        assert_eq!(stats.attached, Duration::from_millis(3500));
    }

    #[test]
    fn child_that_logs_call_is_its_taker() {
        let ledger = Ledger::from_lines(&[
            r#"{"message":"child started","tag":"aa","pid":7}"#,
            r#"{"message":"took raw.1 pid=7","tag":"aa","target":"child"}"#,
        ]);
        assert_eq!(ledger.owner(7).unwrap(), "aa");
        let taken = TakenCall {
            tag: "aa".to_owned(),
            pid: 7,
        };
        assert_eq!(
            (ledger.takers("raw.1"), ledger.takers("raw.2")),
            (&[taken][..], &[][..])
        );
    }
}
