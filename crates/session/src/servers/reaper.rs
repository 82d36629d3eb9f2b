//! The reaper: detaches servers that have been idle longer than
//! [`Config::idle_timeout`](crate::Config::idle_timeout), and ends sessions that have been dormant
//! longer than [`Config::retain`](crate::Config::retain).
//!
//! It only signals. The keepers of the servers stop them, so that a slow stop holds nothing up.
//! Each session has one deadline, the earliest time at which it may have to be reaped.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    ports::{DetachReason, EndReason},
    state::{EndCondition, Phase, RegistryState},
};

/// The shortest interval: the timer refuses zero.
const MIN_INTERVAL: Duration = Duration::from_millis(1);

/// Reaps until the registry closes.
pub(crate) async fn run(state: Arc<RegistryState>) {
    let interval = state.config.reap_interval.max(MIN_INTERVAL);
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = state.closing.cancelled() => return,
            _scheduled = ticks.tick() => sweep(&state, Instant::now()),
        }
    }
}

fn sweep(state: &RegistryState, now: Instant) {
    let (idle_timeout, retain) = (state.config.idle_timeout, state.config.retain);
    let due = state.reap_deadlines.take_due(now);
    for session in due.iter().filter_map(|key| state.table.get(key)) {
        let (idle, server) = {
            let locked = session.lock();
            (session.idle(&locked, now), locked.lifecycle.server().cloned())
        };
        match (idle, server) {
            (Some(idle), Some(server)) if idle >= idle_timeout => {
                state.detach(&session, &server, DetachReason::Idle);
            }
            (Some(idle), None) if idle >= retain => {
                state.end(&session, EndReason::Idle, EndCondition::IfIdleFor(retain));
            }
            _ => {}
        }
        // It was busy, or is dormant now.
        let locked = session.lock();
        let limit = match locked.lifecycle.phase() {
            Phase::Opening { .. } | Phase::Attached { .. } => idle_timeout,
            Phase::Dormant => retain,
            Phase::Ended(_) => continue,
        };
        let left = limit.saturating_sub(idle.unwrap_or_default());
        let next = now + left.max(MIN_INTERVAL);
        state.reap_deadlines.set(session.key, Some(next));
    }
}
