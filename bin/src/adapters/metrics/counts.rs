//! The counters, gauges and histograms themselves.
//!
//! Names follow the conventions of Prometheus: base units, `_total` for what only grows (the encoder adds it), one prefix.

use std::{fmt, sync::atomic::Ordering};

use bridge::{DropCounts, DropReason};
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
use crate::build;

/// Before every name.
pub(crate) const PREFIX: &str = "forgejo_mcp_broker";

/// What has happened, counted since the process started.
#[derive(Debug)]
pub struct Counts {
    registry: Registry,
    sessions: Family<One, Gauge>,
    children: Gauge,
    opened: Counter,
    ended: Family<One, Counter>,
    slept: Family<One, Counter>,
    refused: Family<One, Counter>,
    spawns: Family<Spawn, Counter>,
    spawn_duration: Family<One, Histogram, fn() -> Histogram>,
    children_died: Counter,
    revivals: Family<One, Counter>,
    revival_duration: Histogram,
    request_wait: Histogram,
    put_off: Counter,
    rotations: Family<One, Counter>,
    exchanges: Family<Exchange, Counter>,
    exchange_duration: Family<One, Histogram, fn() -> Histogram>,
    messages_dropped: Family<One, Counter>,
    /// The source of `messages_dropped`.
    drop_counts: DropCounts,
}

/// One label and its value, both from fixed lists.
type One = [(&'static str, &'static str); 1];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Spawn {
    purpose: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Exchange {
    route: &'static str,
    status: u16,
}

/// In seconds: from an answer out of memory to the longest start that makes sense.
const BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];

const STARTED: &str = "started";
const REVIVED: &str = "revived";
const MOVED: &str = "moved";
const FAILED: &str = "failed";

impl Default for Counts {
    fn default() -> Self {
        let timed: fn() -> Histogram = || Histogram::new(BUCKETS);
        let mut counts = Self {
            registry: Registry::with_prefix(PREFIX),
            sessions: Family::default(),
            children: Gauge::default(),
            opened: Counter::default(),
            ended: Family::default(),
            slept: Family::default(),
            refused: Family::default(),
            spawns: Family::default(),
            spawn_duration: Family::new_with_constructor(timed),
            children_died: Counter::default(),
            revivals: Family::default(),
            revival_duration: timed(),
            request_wait: timed(),
            put_off: Counter::default(),
            rotations: Family::default(),
            exchanges: Family::default(),
            exchange_duration: Family::new_with_constructor(timed),
            messages_dropped: Family::default(),
            drop_counts: DropCounts::default(),
        };
        counts.register();
        counts.begin_at_zero();
        counts
    }
}

impl Counts {
    /// The counts to share with every bridge.
    #[must_use]
    pub fn drop_counts(&self) -> DropCounts {
        self.drop_counts.clone()
    }

    /// Sets what is not counted but stands.
    pub(super) fn stand(&self, stats: Stats, children: usize) {
        let Stats {
            opening,
            attached,
            dormant,
            stopping,
        } = stats;
        for (state, count) in [
            ("live", attached),
            ("dormant", dormant),
            ("starting", opening),
            ("stopping", stopping),
        ] {
            self.sessions.get_or_create(&[("state", state)]).set(whole(count));
        }
        self.children.set(whole(children));
        for (reason, label) in DropReason::LABELS {
            let counter = self.messages_dropped.get_or_create(&[("reason", label)]);
            counter.inner().store(self.drop_counts.get(reason), Ordering::Relaxed);
        }
    }

    /// All of it, in the text format of OpenMetrics 1.0.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(crate) fn request_completed(&self, completed: CompletedRequest) {
        let CompletedRequest {
            route,
            status,
            duration: took,
        } = completed;
        let status = status.as_u16();
        self.exchanges.get_or_create(&Exchange { route, status }).inc();
        let duration = self.exchange_duration.get_or_create(&[("route", route)]);
        duration.observe(took.as_secs_f64());
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let build = Info::new([("version", build::VERSION), ("revision", build::REVISION)]);
        registry.register("build", "What was built", build);
        registry.register(
            "sessions",
            "Sessions: with a child, asleep, being opened, or ended with a child that is still being stopped",
            self.sessions.clone(),
        );
        registry.register(
            "children",
            "Processes of MCP servers, those included that start or are being stopped",
            self.children.clone(),
        );
        registry.register("sessions_opened", "Sessions that were opened", self.opened.clone());
        registry.register(
            "sessions_ended",
            "Sessions that have ended, by reason; not_opened are those that no client ever had",
            self.ended.clone(),
        );
        registry.register(
            "sessions_slept",
            "Times that a session lost its child and was kept, by reason",
            self.slept.clone(),
        );
        registry.register(
            "sessions_refused",
            "Sessions that were not opened because a cap is reached",
            self.refused.clone(),
        );
        registry.register("spawns", "Children that were asked for", self.spawns.clone());
        registry.register_with_unit(
            "spawn_duration",
            "How long children took that have started",
            Unit::Seconds,
            self.spawn_duration.clone(),
        );
        registry.register(
            "children_died",
            "Children that ended without having been told to",
            self.children_died.clone(),
        );
        registry.register(
            "revivals",
            "Times that a sleeping session was to get a child, whatever waited for it",
            self.revivals.clone(),
        );
        registry.register_with_unit(
            "revival_duration",
            "From the first request that waits to the child that answers it",
            Unit::Seconds,
            self.revival_duration.clone(),
        );
        registry.register_with_unit(
            "request_wait",
            "How long a request to a sleeping session waited for a child, or for word that there is none",
            Unit::Seconds,
            self.request_wait.clone(),
        );
        registry.register(
            "requests_put_off",
            "Requests that were told to come later because children of their session keep ending",
            self.put_off.clone(),
        );
        registry.register(
            "rotations",
            "Times that a session was to move to a child with a fresh token; one that failed is tried again while the old token lives",
            self.rotations.clone(),
        );
        registry.register(
            "http_exchanges",
            "HTTP exchanges by where they led (mcp, oauth, healthz, readyz, metrics, index, unknown) and the status of the answer",
            self.exchanges.clone(),
        );
        registry.register_with_unit(
            "http_exchange_duration",
            "From the head of a request to the head of its answer; a stream goes on after that",
            Unit::Seconds,
            self.exchange_duration.clone(),
        );
        registry.register(
            "messages_dropped",
            "Messages between clients and MCP servers that were dropped or replaced by an error, by reason",
            self.messages_dropped.clone(),
        );
    }

    /// Makes every series with fixed labels, so that a rate is known from the first event on.
    fn begin_at_zero(&self) {
        self.stand(Stats::default(), 0);
        for ending in names::ENDINGS {
            drop(self.ended.get_or_create(&[("reason", names::ending(ending))]));
        }
        for sleep in names::SLEEPS {
            drop(self.slept.get_or_create(&[("reason", names::sleep(sleep))]));
        }
        for cap in names::CAPS {
            drop(self.refused.get_or_create(&[("cap", names::cap(cap))]));
        }
        for purpose in names::PURPOSES.map(names::purpose) {
            let failures = names::FAILURES.map(names::failure);
            for outcome in [STARTED].into_iter().chain(failures) {
                drop(self.spawns.get_or_create(&Spawn { purpose, outcome }));
            }
            drop(self.spawn_duration.get_or_create(&[("purpose", purpose)]));
        }
        for outcome in [REVIVED, FAILED] {
            drop(self.revivals.get_or_create(&[("outcome", outcome)]));
        }
        for outcome in [MOVED, FAILED] {
            drop(self.rotations.get_or_create(&[("outcome", outcome)]));
        }
    }

    fn spawned(&self, purpose: &'static str, outcome: &'static str) {
        self.spawns.get_or_create(&Spawn { purpose, outcome }).inc();
    }

    fn revived(&self, outcome: &'static str) {
        self.revivals.get_or_create(&[("outcome", outcome)]).inc();
    }

    fn rotated(&self, outcome: &'static str) {
        self.rotations.get_or_create(&[("outcome", outcome)]).inc();
    }
}

impl Observer for Counts {
    fn on(&self, event: Event) {
        match event {
            Event::Opened => _ = self.opened.inc(),
            Event::Spawned(purpose, took) => {
                let purpose = names::purpose(purpose);
                self.spawned(purpose, STARTED);
                let duration = self.spawn_duration.get_or_create(&[("purpose", purpose)]);
                duration.observe(took.as_secs_f64());
            }
            Event::SpawnFailed(purpose, why) => self.spawned(names::purpose(purpose), names::failure(why)),
            Event::BackendDied => _ = self.children_died.inc(),
            Event::Detached(why) => _ = self.slept.get_or_create(&[("reason", names::sleep(why))]).inc(),
            Event::Revived(took) => {
                self.revived(REVIVED);
                self.revival_duration.observe(took.as_secs_f64());
            }
            Event::RevivalFailed => self.revived(FAILED),
            Event::Waited(time) => self.request_wait.observe(time.as_secs_f64()),
            Event::BackedOff => _ = self.put_off.inc(),
            Event::Rotated => self.rotated(MOVED),
            Event::RotationFailed => self.rotated(FAILED),
            Event::QuotaExceeded(cap) => _ = self.refused.get_or_create(&[("cap", names::cap(cap))]).inc(),
            Event::Ended(why) => _ = self.ended.get_or_create(&[("reason", names::ending(why))]).inc(),
        }
    }
}

/// Counts are far below the end of the range.
fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use session::ports::{DetachReason, EndReason, SpawnFailure, SpawnPurpose};

    use super::*;

    fn has(counts: &Counts, line: &str) -> bool {
        counts.text().unwrap().lines().any(|found| found == line)
    }

    #[test]
    fn everything_with_fixed_labels_is_there_before_anything_happens() {
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
    fn each_event_is_counted_where_it_belongs_and_adds_no_series() {
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
        all.extend(names::ENDINGS.map(Event::Ended));
        all.extend(names::SLEEPS.map(Event::Detached));
        all.extend(names::CAPS.map(Event::QuotaExceeded));
        for purpose in names::PURPOSES {
            all.push(Event::Spawned(purpose, second));
            all.extend(names::FAILURES.map(|failure| Event::SpawnFailed(purpose, failure)));
        }
        for event in &all {
            counts.on(*event);
        }
        let after = counts.text().unwrap();
        assert_eq!(before.lines().count(), after.lines().count());
        // Only what stands, the build and the exchanges of the face are told by others.
        let still: Vec<_> = after
            .lines()
            .filter(|line| line.ends_with(" 0") && !line.contains("_bucket{"))
            .filter(|line| !line.starts_with("forgejo_mcp_broker_sessions{") && !line.contains("_children "))
            .filter(|line| !line.contains("_messages_dropped_"))
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
