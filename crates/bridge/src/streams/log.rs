//! What one stream has brought and has yet to bring, in order.
//!
//! A log is one queue with a cursor: behind it what has been handed out, before it what waits. Going back to an earlier place is
//! moving the cursor. Places only grow and are not used twice; there may be gaps where something gave way.

use std::collections::VecDeque;

use super::Item;

/// A message and its place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) place: u64,
    pub(super) item: Item,
    /// Its rank among all that is kept for replay; `None` while it counts as waiting.
    pub(super) stamp: Option<u64>,
}

/// The messages of one stream.
#[derive(Debug, Default)]
pub(super) struct Log {
    slots: VecDeque<Slot>,
    /// How many of `slots` have been handed out.
    handed: usize,
    /// The place that was given last.
    last: u64,
    /// The place up to which has been handed out.
    read: u64,
}

impl Log {
    /// Adds a message at the end.
    pub(super) fn push(&mut self, item: Item, stamp: Option<u64>) {
        self.last += 1;
        self.slots.push_back(Slot {
            place: self.last,
            item,
            stamp,
        });
    }

    /// The next message, which counts as handed out from now on.
    pub(super) fn hand_out(&mut self) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(self.handed)?;
        self.handed += 1;
        self.read = slot.place;
        Some(slot)
    }

    /// Takes the oldest message out, handed out or not.
    pub(super) fn pop(&mut self) -> Option<Slot> {
        let slot = self.slots.pop_front()?;
        if let Some(handed) = self.handed.checked_sub(1) {
            self.handed = handed;
        } else {
            self.read = slot.place;
        }
        Some(slot)
    }

    /// Takes a message that waits out of the middle.
    pub(super) fn remove(&mut self, matches: impl Fn(&Item) -> bool) -> Option<Slot> {
        let at = self
            .slots
            .iter()
            .skip(self.handed)
            .position(|slot| matches(&slot.item))?;
        self.slots.remove(self.handed + at)
    }

    /// Goes back, or forward, to just behind a place.
    pub(super) fn go_to(&mut self, place: u64) {
        self.handed = self.slots.partition_point(|slot| slot.place <= place);
        self.read = place.min(self.last);
    }

    /// What waits.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.slots.iter().skip(self.handed).map(|slot| &slot.item)
    }

    /// What waits, to be stamped.
    pub(super) fn waiting_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().skip(self.handed)
    }

    /// How many messages wait.
    pub(super) fn count_waiting(&self) -> usize {
        self.slots.len() - self.handed
    }

    /// What has been handed out, of which nothing is left then.
    pub(super) fn take_handed(&mut self) -> Vec<Slot> {
        self.slots.drain(..std::mem::take(&mut self.handed)).collect()
    }

    /// Whether nothing waits and nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The place up to which the reader has been given everything.
    pub(super) fn place(&self) -> u64 {
        self.read
    }

    /// Everything, and an empty log.
    pub(super) fn take(&mut self) -> VecDeque<Slot> {
        self.handed = 0;
        std::mem::take(&mut self.slots)
    }
}
