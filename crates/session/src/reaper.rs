//! The reaper: ends sessions on which nothing has happened for too long.
//!
//! It only signals. The keepers stop the backends, so that one that stops slowly holds nothing up.

use std::sync::Arc;

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::registry::Shared;

/// Reaps until the registry closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    // A zero interval would be refused by the timer.
    let every = shared.config.reap_interval.max(std::time::Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            _scheduled = ticks.tick() => sweep(&shared, Instant::now()),
        }
    }
}

fn sweep(shared: &Shared, now: Instant) {
    let timeout = shared.config.idle_timeout;
    for session in shared.table.select(|_| true) {
        // Asked again under the lock of the session: an exchange may begin in between.
        shared.table.end_if_idle(&session, now, timeout);
    }
}
