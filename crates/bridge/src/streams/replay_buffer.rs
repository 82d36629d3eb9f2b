//! The replay buffer: which messages stay for clients that resume, and which are evicted.
//!
//! The messages themselves stay in the queues of their streams. With a reader, a stream keeps its
//! delivered messages for replay; without one, all of them. Sequence numbers grow within a stream
//! as positions do, so the oldest message of the buffer is the first of its stream, and evicting it
//! leaves no gap.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{StreamId, StreamKind, StreamMessage, StreamMessageKind, Streams, event_queue::QueuedMessage};
use crate::config::QueueLimits;

/// Counts the messages of all streams that are kept for replay, oldest first.
#[derive(Debug, Default)]
pub(super) struct ReplayBuffer {
    /// The stream of each message, by sequence number.
    order: BTreeMap<u64, StreamId>,
    bytes: usize,
    next_seq: u64,
}

impl ReplayBuffer {
    /// Adds a message and returns its sequence number.
    fn add(&mut self, stream: StreamId, size: usize) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        self.order.insert(seq, stream);
        self.bytes += size;
        seq
    }

    pub(super) fn remove(&mut self, seq: u64, size: usize) {
        self.order.remove(&seq);
        self.bytes -= size;
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn exceeds(&self, limits: QueueLimits) -> bool {
        // A single message stays whatever its size.
        self.order.len() > limits.messages.max(1) || (self.order.len() > 1 && self.bytes > limits.bytes)
    }

    /// The number of messages and their bytes.
    #[cfg(test)]
    pub(super) fn usage(&self) -> (usize, usize) {
        (self.order.len(), self.bytes)
    }
}

impl Streams {
    /// Adds a message to a stream without checking limits.
    pub(super) fn push(&mut self, id: StreamId, message: StreamMessage) {
        let Some(stream) = self.all.get_mut(&id) else {
            return;
        };
        let size = message.line.len();
        let replay_seq = if stream.attached {
            self.bytes += size;
            None
        } else {
            Some(self.replay_buffer.add(id, size))
        };
        stream.queue.push(message, replay_seq);
        self.wakers.extend(stream.waker.take());
        self.trim_replay_buffer();
    }

    /// Delivers the next message of a stream, and keeps it for replay if the client can resume.
    pub(super) fn deliver_next(&mut self, id: StreamId) -> Option<Bytes> {
        let stream = self.all.get_mut(&id)?;
        if !stream.primed {
            let queued = stream.queue.pop()?;
            self.release(&queued);
            return Some(queued.message.line.clone());
        }
        let queued = stream.queue.deliver()?;
        let line = queued.message.line.clone();
        queued.replay_seq = Some(self.replay_buffer.add(id, line.len()));
        self.bytes -= line.len();
        Some(line)
    }

    /// Moves the pending messages of a primed stream without a reader to the replay buffer.
    pub(super) fn retain_pending(&mut self, id: StreamId) {
        if let Some(stream) = self.all.get_mut(&id).filter(|stream| stream.primed) {
            for queued in stream.queue.pending_mut().filter(|queued| queued.replay_seq.is_none()) {
                let size = queued.message.line.len();
                queued.replay_seq = Some(self.replay_buffer.add(id, size));
                self.bytes -= size;
            }
        }
    }

    /// Subtracts a removed message from the counts.
    pub(super) fn release(&mut self, queued: &QueuedMessage) {
        let size = queued.message.line.len();
        match queued.replay_seq {
            Some(seq) => self.replay_buffer.remove(seq, size),
            None => self.bytes -= size,
        }
    }

    /// Evicts the oldest messages from the replay buffer until it is within its limits.
    pub(super) fn trim_replay_buffer(&mut self) {
        while self.replay_buffer.exceeds(self.config.replay_buffer)
            || (self.replay_buffer.order.len() > 1 && self.exceeds_memory(0))
        {
            let Some(id) = self.replay_buffer.order.first_entry().map(|first| *first.get()) else {
                return;
            };
            let Some(evicted) = self.all.get_mut(&id).and_then(|stream| stream.queue.pop()) else {
                return;
            };
            self.release(&evicted);
            let Some(stream) = self.all.get_mut(&id) else {
                return;
            };
            let was_response = evicted.message.kind == StreamMessageKind::Response;
            // A stream cannot be replayed without one of its responses: a client that resumes it
            // gets an error. An attached reader continues.
            if was_response && stream.attached {
                stream.primed = false;
                stream.incomplete = true;
                for queued in stream.queue.take_delivered() {
                    self.release(&queued);
                }
            } else if !stream.attached && (was_response || stream.is_empty_listener()) {
                self.remove(id);
            }
        }
    }
}

impl super::Stream {
    /// True for a listener without messages, which is not worth keeping.
    pub(super) fn is_empty_listener(&self) -> bool {
        self.kind == StreamKind::Listener && self.queue.is_empty()
    }
}
