//! The messages of one stream in order: those delivered, then those pending.
//!
//! One queue with a cursor between the two parts; going back to an earlier position moves the
//! cursor. Positions only grow and are never reused; dropped messages leave gaps.

use std::collections::VecDeque;

use super::message::{StreamMessage, StreamMessageKind};

#[derive(Debug)]
pub(super) struct QueuedMessage {
    pub(super) position: u64,
    pub(super) message: StreamMessage,
    /// The sequence number in the replay buffer; `None` for a message outside of it.
    pub(super) replay_seq: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct EventQueue {
    messages: VecDeque<QueuedMessage>,
    /// The number of delivered messages at the front of `messages`.
    delivered: usize,
    /// The position of the message that was pushed last.
    last: u64,
    /// The position up to which the reader has everything.
    position: u64,
    /// The position up to which any reader was given everything.
    reached: u64,
}

impl EventQueue {
    pub(super) fn push(&mut self, message: StreamMessage, replay_seq: Option<u64>) {
        self.last += 1;
        self.messages.push_back(QueuedMessage {
            position: self.last,
            message,
            replay_seq,
        });
    }

    /// The next pending message, which counts as delivered from now on.
    pub(super) fn deliver(&mut self) -> Option<&mut QueuedMessage> {
        let next = self.messages.get_mut(self.delivered)?;
        self.delivered += 1;
        self.position = next.position;
        self.reached = self.reached.max(next.position);
        Some(next)
    }

    /// Removes the oldest message, delivered or not.
    pub(super) fn pop(&mut self) -> Option<QueuedMessage> {
        let oldest = self.messages.pop_front()?;
        if let Some(delivered) = self.delivered.checked_sub(1) {
            self.delivered = delivered;
        } else {
            self.position = oldest.position;
        }
        Some(oldest)
    }

    /// Removes the oldest pending message that matches.
    pub(super) fn remove(&mut self, matches: impl Fn(&StreamMessageKind) -> bool) -> Option<QueuedMessage> {
        let at = self.pending().position(matches)?;
        self.messages.remove(self.delivered + at)
    }

    /// Removes the oldest pending message that matches and that no reader was ever given.
    pub(super) fn remove_new(&mut self, matches: impl Fn(&StreamMessageKind) -> bool) -> Option<QueuedMessage> {
        let reached = self.reached;
        let mut pending = self.messages.iter().skip(self.delivered);
        let at = pending.position(|queued| queued.position > reached && matches(&queued.message.kind))?;
        self.messages.remove(self.delivered + at)
    }

    /// Moves the cursor behind a position.
    pub(super) fn seek(&mut self, position: u64) {
        self.delivered = self.messages.partition_point(|queued| queued.position <= position);
        self.position = position.min(self.last);
    }

    pub(super) fn pending(&self) -> impl Iterator<Item = &StreamMessageKind> {
        let pending = self.messages.iter().skip(self.delivered);
        pending.map(|queued| &queued.message.kind)
    }

    pub(super) fn pending_mut(&mut self) -> impl Iterator<Item = &mut QueuedMessage> {
        self.messages.iter_mut().skip(self.delivered)
    }

    pub(super) fn count_pending(&self) -> usize {
        self.messages.len() - self.delivered
    }

    pub(super) fn take_delivered(&mut self) -> Vec<QueuedMessage> {
        self.messages.drain(..std::mem::take(&mut self.delivered)).collect()
    }

    /// True if no message is pending or kept for replay.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The position up to which the reader has everything.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn take(&mut self) -> VecDeque<QueuedMessage> {
        self.delivered = 0;
        std::mem::take(&mut self.messages)
    }
}
