//! Work that comes round by itself: hearing what other brokers on the store have ended, writing down what was used, and
//! forgetting what has expired.

use std::{fmt::Display, time::Duration};

use oauth::AuthorizationServer;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often endings are heard. Sessions of a grant that another broker has ended live that much longer.
const HEAR: Duration = Duration::from_secs(1);
/// How often it is written down which grants have been used.
const RECORD: Duration = Duration::from_secs(60);
/// How often what has expired is forgotten. Nothing depends on it but the size of the database: it is refused anyway.
const PURGE: Duration = Duration::from_secs(10 * 60);

/// Hears endings until it is dropped, beside whatever else takes its time. Cancel safe: it only reads.
pub(super) async fn hear(server: AuthorizationServer) {
    let mut hear = every(HEAR);
    loop {
        hear.tick().await;
        told(
            server.poll_revocations().await,
            "what other brokers have ended is not known",
        );
    }
}

/// Does the rest until it is dropped. Cancel safe: each of its works is one transaction or several, each whole, and the uses that
/// are not written down are kept.
pub(super) async fn run(server: AuthorizationServer) {
    let (mut record, mut purge) = (every(RECORD), every(PURGE));
    loop {
        tokio::select! {
            _ = record.tick() => told(server.record_uses().await, "the store could not note what was used"),
            _ = purge.tick() => told(server.purge_expired().await, "the store could not forget what has expired"),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn told(outcome: Result<(), impl Display>, what: &'static str) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "{what}");
    }
}
