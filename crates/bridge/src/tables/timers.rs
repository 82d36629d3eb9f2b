//! The deadlines of a conversation: at most one for each subject.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::streams::StreamId;

/// The subject of a deadline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// A call times out.
    Call(u64),
    /// A question of a server times out.
    Question(u64),
    /// A retained stream expires.
    Stream(StreamId),
    /// The time to live of a task is over.
    Task(Box<str>),
    /// The questions about a call go to its client.
    Gather(u64),
    /// The outcome of a round of a call is no longer kept.
    Round((u64, u32)),
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, Timer)>,
    deadlines: HashMap<Timer, Instant>,
    /// The time at which the task of the timers wakes up. It may be earlier than the first
    /// deadline, so that most calls end without a word to the task.
    wake_up: Option<Instant>,
}

impl Timers {
    /// The time of the first deadline, at which the task of the timers is about to wake up.
    pub(crate) fn arm(&mut self) -> Option<Instant> {
        self.wake_up = self.next();
        self.wake_up
    }

    /// True if the task of the timers has to be told of a deadline before its next wake-up.
    pub(crate) fn take_earlier(&mut self) -> bool {
        let Some(next) = self.next() else { return false };
        let is_earlier = self.wake_up.is_none_or(|wake_up| next < wake_up);
        if is_earlier {
            self.wake_up = Some(next);
        }
        is_earlier
    }

    /// Sets a deadline, which replaces the one before.
    pub(crate) fn set(&mut self, timer: Timer, at: Instant) {
        self.cancel(&timer);
        self.order.insert((at, timer.clone()));
        self.deadlines.insert(timer, at);
    }

    /// Moves a deadline forward if it is later.
    pub(crate) fn set_at_most(&mut self, timer: Timer, at: Instant) {
        if self.deadlines.get(&timer).is_none_or(|deadline| at < *deadline) {
            self.set(timer, at);
        }
    }

    pub(crate) fn contains(&self, timer: &Timer) -> bool {
        self.deadlines.contains_key(timer)
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(at) = self.deadlines.remove(timer) {
            self.order.remove(&(at, timer.clone()));
        }
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes the earliest deadline if it has passed.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Timer> {
        self.next().filter(|at| *at <= now)?;
        let (_, timer) = self.order.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = &(Instant, Timer)> {
        self.order.iter()
    }
}
