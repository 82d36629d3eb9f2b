//! The deadlines of a state machine: at most one for each subject.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::{jsonrpc::RequestKey, streams::StreamId};

/// The subject of a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Timer {
    /// A client request times out.
    Request(u64),
    /// A server request times out.
    ServerRequest(RequestKey),
    /// A retained stream expires.
    Stream(StreamId),
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    order: BTreeSet<(Instant, Timer)>,
    deadlines: HashMap<Timer, Instant>,
}

impl Timers {
    /// Sets a deadline, which replaces the one before.
    pub(super) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.order.insert((at, timer.clone()));
        self.deadlines.insert(timer, at);
    }

    /// Moves a deadline forward if it is later.
    pub(super) fn set_at_most(&mut self, timer: Timer, at: Instant) {
        if self.deadlines.get(&timer).is_none_or(|deadline| at < *deadline) {
            self.set(timer, at);
        }
    }

    pub(super) fn contains(&self, timer: &Timer) -> bool {
        self.deadlines.contains_key(timer)
    }

    pub(super) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.deadlines.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes the earliest deadline if it has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Timer> {
        self.next().filter(|at| *at <= now)?;
        let (_, timer) = self.order.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Timer> {
        self.order.iter().map(|(_, timer)| timer)
    }
}
