//! The reaper: puts sessions to sleep on which nothing has happened for too long, and ends those that have slept too long.
//!
//! It only signals. The keepers stop the backends, so that one that stops slowly holds nothing up. Each session is on the agenda
//! once, with the earliest time at which something may have to be done about it.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{ending::Shut, ports::EndReason, registry::Shared, seat::Session};

/// Reaps until the registry closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    // A zero interval would be refused by the timer.
    let every = shared.config.reap_interval.max(Duration::from_millis(1));
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

fn sweep(shared: &Arc<Shared>, now: Instant) {
    let due = shared.looks().due(now);
    for session in due.iter().filter_map(|key| shared.table.get(key)) {
        let (idle, limit) = (session.inner().life.idle(now), shared.patience(&session));
        match idle {
            Some(idle) if idle >= limit && session.seat().is_some() => shared.sleep(&session),
            Some(idle) if idle >= limit => {
                shared.end(&session, EndReason::Idle, Shut::IdleFor(limit));
            }
            _ => {}
        }
        // It was busy meanwhile, or sleeps now. If it has ended, nothing comes of the entry.
        let rest = shared.patience(&session).saturating_sub(idle.unwrap_or_default());
        shared.plan_look(&session, now + rest.max(Duration::from_millis(1)));
    }
}

impl Shared {
    /// How long a session may be idle before something has to be done about it.
    fn patience(&self, session: &Session) -> Duration {
        if session.seat().is_some() {
            self.config.idle_timeout
        } else {
            self.config.retain
        }
    }
}
