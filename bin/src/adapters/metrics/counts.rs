//! Counters, gauges and histograms.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for counters (the encoder adds
//! it), one prefix.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use bridge::{DropCounts, DropReason, EraCounts};
use broker::ports::CompletedRequest;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use session::{
    Stats,
    ports::{Event, Observer},
};

use super::names;
use crate::version;

pub(crate) const PREFIX: &str = "forgejo_mcp_broker";

/// Defines the metrics: `name: type = "exported name"`, in seconds if a constructor follows. The
/// documentation of a field is its help text.
macro_rules! metrics {
    ($( $(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal $(seconds $new:expr)?, )+) => {
        /// All events since the process started.
        #[derive(Debug)]
        pub(crate) struct Counts {
            registry: Registry,
            /// The source of `messages_dropped`.
            drop_counts: DropCounts,
            /// The source of `requests` and of the counts of questions.
            era_counts: EraCounts,
            $( $(#[doc = $help])+ $field: $type, )+
        }

        impl Counts {
            fn register(mut registry: Registry) -> Self {
                $(
                    let $field: $type = metrics!(@new $($new)?);
                    let help = concat!($($help),+).trim();
                    metrics!(@register registry, $name, help, $field.clone() $(, $new)?);
                )+
                Self { registry, drop_counts: DropCounts::default(), era_counts: EraCounts::default(), $($field),+ }
            }
        }
    };
    (@new) => { Default::default() };
    (@new $new:expr) => { $new };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr) => {
        $registry.register($name, $help, $metric)
    };
    (@register $registry:ident, $name:expr, $help:expr, $metric:expr, $new:expr) => {
        $registry.register_with_unit($name, $help, Unit::Seconds, $metric)
    };
}

metrics! {
    /// Sessions with a child, dormant, being opened, or ended while the child is stopping
    sessions: Family<Label, Gauge> = "sessions",
    /// Processes of MCP servers, including those that are starting or stopping
    children: Gauge = "children",
    /// Opened sessions
    opened: Counter = "sessions_opened",
    /// Ended sessions by reason; a not_opened session never reached its client
    ended: Family<Label, Counter> = "sessions_ended",
    /// Sessions that lost their child and became dormant, by reason
    detached: Family<Label, Counter> = "sessions_slept",
    /// Sessions that were not opened because a limit is reached
    refused: Family<Label, Counter> = "sessions_refused",
    /// Attempts to start a child
    spawns: Family<SpawnLabels, Counter> = "spawns",
    /// Start times of children that started
    spawn_duration: Family<Label, Histogram> = "spawn_duration" seconds Family::new_with_constructor(timed),
    /// Children that exited without a stop
    children_died: Counter = "children_died",
    /// Attempts to start a child for a dormant session and all requests that wait
    revivals: Family<Label, Counter> = "revivals",
    /// From the first waiting request to the child that answers it
    revival_duration: Histogram = "revival_duration" seconds timed(),
    /// Time that a request to a dormant session waited for a child or for an error
    request_wait: Histogram = "request_wait" seconds timed(),
    /// Requests that were answered "try again later", because the children of their session keep
    /// exiting
    backed_off: Counter = "requests_put_off",
    /// Attempts to move a session to a child with a fresh token; a failed one is repeated while the
    /// old token is valid
    rotations: Family<Label, Counter> = "rotations",
    /// HTTP requests by route (mcp, oauth, healthz, readyz, metrics, index, unknown) and response
    /// status
    exchanges: Family<ExchangeLabels, Counter> = "http_exchanges",
    /// From the head of a request to the head of its response; a stream continues after that
    exchange_duration: Family<Label, Histogram> = "http_exchange_duration" seconds Family::new_with_constructor(timed),
    /// Messages between clients and MCP servers that were dropped or replaced by an error, by
    /// reason
    messages_dropped: Family<Label, Counter> = "messages_dropped",
    /// MCP requests by the era of their client: legacy is up to 2025-11-25, modern from 2026-07-28
    requests: Family<Label, Counter> = "requests",
    /// Requests of modern clients that wait at the MCP server while the client answers questions
    parked: Counter = "requests_parked",
    /// Parked requests that went on with the answers of the client
    rounds: Counter = "requests_resumed",
    /// Answers of modern clients whose requestState had expired or was not made by this broker
    invalid_states: Counter = "request_states_rejected",
}

/// One label and its value, both from fixed lists.
type Label = [(&'static str, &'static str); 1];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpawnLabels {
    purpose: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExchangeLabels {
    route: &'static str,
    status: u16,
}

/// In seconds: from a response out of memory to the longest start that makes sense.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

const STARTED: &str = "started";
const REVIVED: &str = "revived";
const MOVED: &str = "moved";
const FAILED: &str = "failed";

impl Default for Counts {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let build = Info::new([("version", version::VERSION), ("revision", version::REVISION)]);
        registry.register("build", "Version and revision of the program", build);
        let counts = Self::register(registry);
        counts.begin_at_zero();
        counts
    }
}

fn timed() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Counts {
    pub(crate) fn drop_counts(&self) -> DropCounts {
        self.drop_counts.clone()
    }

    pub(crate) fn era_counts(&self) -> EraCounts {
        self.era_counts.clone()
    }

    /// Takes over the values that others count.
    pub(super) fn update(&self, stats: Stats, children: usize) {
        for (state, count) in [
            ("live", stats.attached),
            ("dormant", stats.dormant),
            ("starting", stats.opening),
            ("stopping", stats.stopping),
        ] {
            self.sessions.get_or_create(&[("state", state)]).set(gauge_value(count));
        }
        self.children.set(gauge_value(children));
        for (reason, label) in DropReason::LABELS {
            let counter = self.messages_dropped.get_or_create(&[("reason", label)]);
            counter.inner().store(self.drop_counts.get(reason), Ordering::Relaxed);
        }
        let eras = &self.era_counts;
        for (era, count) in [("legacy", eras.legacy_requests()), ("modern", eras.modern_requests())] {
            let counter = self.requests.get_or_create(&[("era", era)]);
            counter.inner().store(count, Ordering::Relaxed);
        }
        for (counter, count) in [
            (&self.parked, eras.parked_calls()),
            (&self.rounds, eras.rounds()),
            (&self.invalid_states, eras.invalid_states()),
        ] {
            counter.inner().store(count, Ordering::Relaxed);
        }
    }

    /// All metrics in the text format of OpenMetrics 1.0.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn request_completed(&self, completed: CompletedRequest) {
        let (route, status) = (completed.route, completed.status.as_u16());
        self.exchanges.get_or_create(&ExchangeLabels { route, status }).inc();
        observe(&self.exchange_duration, ("route", route), completed.duration);
    }

    /// Creates every series with fixed labels, so that a rate is known from the first event on.
    fn begin_at_zero(&self) {
        self.update(Stats::default(), 0);
        let create = |family: &Family<Label, Counter>, name, value| drop(family.get_or_create(&[(name, value)]));
        for reason in names::END_REASONS {
            create(&self.ended, "reason", names::end_reason(*reason));
        }
        for reason in names::DETACH_REASONS {
            create(&self.detached, "reason", names::detach_reason(*reason));
        }
        for scope in names::QUOTA_SCOPES {
            create(&self.refused, "cap", names::quota_scope(*scope));
        }
        for purpose in names::PURPOSES.iter().map(|purpose| names::purpose(*purpose)) {
            let failures = names::FAILURES.iter().map(|failure| names::failure(*failure));
            for outcome in failures.chain([STARTED]) {
                drop(self.spawns.get_or_create(&SpawnLabels { purpose, outcome }));
            }
            drop(self.spawn_duration.get_or_create(&[("purpose", purpose)]));
        }
        for outcome in [REVIVED, FAILED] {
            create(&self.revivals, "outcome", outcome);
        }
        for outcome in [MOVED, FAILED] {
            create(&self.rotations, "outcome", outcome);
        }
    }

    fn spawned(&self, purpose: &'static str, outcome: &'static str) {
        self.spawns.get_or_create(&SpawnLabels { purpose, outcome }).inc();
    }
}

impl Observer for Counts {
    fn on(&self, event: Event) {
        match event {
            Event::Opened => _ = self.opened.inc(),
            Event::Spawned(purpose, duration) => {
                let purpose = names::purpose(purpose);
                self.spawned(purpose, STARTED);
                observe(&self.spawn_duration, ("purpose", purpose), duration);
            }
            Event::SpawnFailed(purpose, failure) => self.spawned(names::purpose(purpose), names::failure(failure)),
            Event::BackendDied => _ = self.children_died.inc(),
            Event::Detached(reason) => increment(&self.detached, ("reason", names::detach_reason(reason))),
            Event::Revived(duration) => {
                increment(&self.revivals, ("outcome", REVIVED));
                self.revival_duration.observe(duration.as_secs_f64());
            }
            Event::RevivalFailed => increment(&self.revivals, ("outcome", FAILED)),
            Event::Waited(duration) => self.request_wait.observe(duration.as_secs_f64()),
            Event::BackedOff => _ = self.backed_off.inc(),
            Event::Rotated => increment(&self.rotations, ("outcome", MOVED)),
            Event::RotationFailed => increment(&self.rotations, ("outcome", FAILED)),
            Event::QuotaExceeded(scope) => increment(&self.refused, ("cap", names::quota_scope(scope))),
            Event::Ended(reason) => increment(&self.ended, ("reason", names::end_reason(reason))),
        }
    }
}

fn increment(family: &Family<Label, Counter>, label: (&'static str, &'static str)) {
    family.get_or_create(&[label]).inc();
}

fn observe(family: &Family<Label, Histogram>, label: (&'static str, &'static str), duration: Duration) {
    family.get_or_create(&[label]).observe(duration.as_secs_f64());
}

/// Counts are far below the end of the range.
fn gauge_value(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use session::ports::{DetachReason, EndReason, SpawnFailure, SpawnPurpose};

    use super::*;

    /// The counts of `bridge`.
    const COUNTED_ELSEWHERE: [&str; 5] = [
        "_messages_dropped_",
        "_requests_total{era",
        "_requests_parked_",
        "_requests_resumed_",
        "_request_states_rejected_",
    ];

    fn has(counts: &Counts, line: &str) -> bool {
        counts.text().unwrap().lines().any(|found| found == line)
    }

    #[test]
    fn series_with_fixed_labels_exist_from_the_start() {
        let counts = Counts::default();
        for line in [
            "forgejo_mcp_broker_sessions{state=\"dormant\"} 0",
            "forgejo_mcp_broker_sessions_opened_total 0",
            "forgejo_mcp_broker_sessions_ended_total{reason=\"displaced\"} 0",
            "forgejo_mcp_broker_spawns_total{purpose=\"rotation\",outcome=\"timed_out\"} 0",
            "forgejo_mcp_broker_spawn_duration_seconds_count{purpose=\"opening\"} 0",
            "forgejo_mcp_broker_rotations_total{outcome=\"failed\"} 0",
            "forgejo_mcp_broker_messages_dropped_total{reason=\"line_too_long\"} 0",
            "# EOF",
        ] {
            assert!(has(&counts, line), "{line} is not in\n{}", counts.text().unwrap());
        }
    }

    #[test]
    fn each_event_is_counted_and_adds_no_series() {
        let counts = Counts::default();
        let before = counts.text().unwrap();
        let second = Duration::from_secs(1);
        let mut all = vec![
            Event::Opened,
            Event::BackendDied,
            Event::Revived(second),
            Event::RevivalFailed,
            Event::Waited(second),
            Event::BackedOff,
            Event::Rotated,
            Event::RotationFailed,
        ];
        all.extend(names::END_REASONS.iter().copied().map(Event::Ended));
        all.extend(names::DETACH_REASONS.iter().copied().map(Event::Detached));
        all.extend(names::QUOTA_SCOPES.iter().copied().map(Event::QuotaExceeded));
        for &purpose in names::PURPOSES {
            all.push(Event::Spawned(purpose, second));
            all.extend(
                names::FAILURES
                    .iter()
                    .map(|failure| Event::SpawnFailed(purpose, *failure)),
            );
        }
        for event in &all {
            counts.on(*event);
        }
        let after = counts.text().unwrap();
        assert_eq!(before.lines().count(), after.lines().count());
        // No event changes the gauges, the build and the HTTP requests.
        let still: Vec<_> = after
            .lines()
            .filter(|line| line.ends_with(" 0") && !line.contains("_bucket{"))
            .filter(|line| !line.starts_with("forgejo_mcp_broker_sessions{") && !line.contains("_children "))
            .filter(|line| !COUNTED_ELSEWHERE.iter().any(|name| line.contains(name)))
            .collect();
        assert!(still.is_empty(), "{still:?}");
        for (event, line) in [
            (
                Event::Ended(EndReason::Revoked),
                "sessions_ended_total{reason=\"revoked\"} 2",
            ),
            (
                Event::Detached(DetachReason::Expired),
                "sessions_slept_total{reason=\"token_expired\"} 2",
            ),
            (
                Event::SpawnFailed(SpawnPurpose::Revival, SpawnFailure::Unavailable),
                "spawns_total{purpose=\"revival\",outcome=\"unavailable\"} 2",
            ),
            (Event::Waited(second), "request_wait_seconds_sum 2.0"),
        ] {
            counts.on(event);
            assert!(has(&counts, &format!("{PREFIX}_{line}")), "{line}");
        }
    }
}
