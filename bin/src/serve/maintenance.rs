//! Periodic work: polling revocations by other brokers on the store, storing uses of grants, and
//! deleting expired rows.

use std::{fmt::Display, time::Duration};

use oauth::AuthorizationServer;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Sessions of a grant that another broker revokes live up to this much longer.
const REVOCATION_POLL_INTERVAL: Duration = Duration::from_secs(1);
const RECORD_USES_INTERVAL: Duration = Duration::from_secs(60);
/// Only the size of the database depends on it: expired rows are refused anyway.
const PURGE_INTERVAL: Duration = Duration::from_secs(10 * 60);

/// Polls revocations until it is dropped. The other work does not delay it. Cancel safe: it only
/// reads.
pub(super) async fn poll_revocations(server: AuthorizationServer) {
    let mut poll = every(REVOCATION_POLL_INTERVAL);
    loop {
        poll.tick().await;
        log_error(
            server.poll_revocations().await,
            "cannot poll the revocations of other brokers",
        );
    }
}

/// Does the other work until it is dropped. Cancel safe: each step is one or more whole
/// transactions, and uses that are not stored are kept.
pub(super) async fn run(server: AuthorizationServer) {
    let (mut record, mut purge) = (every(RECORD_USES_INTERVAL), every(PURGE_INTERVAL));
    loop {
        tokio::select! {
            _ = record.tick() => log_error(server.record_uses().await, "cannot store when grants were last used"),
            _ = purge.tick() => log_error(server.purge_expired().await, "cannot delete expired rows"),
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn log_error(outcome: Result<(), impl Display>, message: &'static str) {
    if let Err(error) = outcome {
        tracing::warn!(%error, "{message}");
    }
}
