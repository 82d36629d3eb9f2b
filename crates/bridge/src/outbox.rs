//! What waits for the server to read it: whole lines, in order, within limits.
//!
//! The limits make a server that stops reading visible: a message of a client that does not fit is refused, so that the
//! client learns of it. The bridge's own messages (cancellations, errors) have as much room again, since
//! they end waits; beyond that they are dropped.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::Limits;

/// A bounded queue of lines.
#[derive(Debug)]
pub(crate) struct Outbox {
    limits: Limits,
    lines: VecDeque<Bytes>,
    /// The bytes of `lines`, line breaks not counted.
    bytes: usize,
    /// How many lines there have been, up to the last one that was taken in.
    offered: u64,
    /// The same for the last one that was handed out.
    taken: u64,
    /// The same for the last one of which the server may have read something.
    accepted: u64,
}

impl Outbox {
    /// An empty queue.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            lines: VecDeque::new(),
            bytes: 0,
            offered: 0,
            taken: 0,
            accepted: 0,
        }
    }

    /// Takes a message of a client; `false` when there is no room for it.
    #[must_use]
    pub(crate) fn offer(&mut self, line: Bytes) -> bool {
        self.push(line, self.limits)
    }

    /// Takes a message of the bridge's own; `false` when there is no room even for that.
    #[must_use]
    pub(crate) fn offer_own(&mut self, line: Bytes) -> bool {
        let Limits { messages, bytes } = self.limits;
        self.push(
            line,
            Limits {
                messages: messages.saturating_mul(2),
                bytes: bytes.saturating_mul(2),
            },
        )
    }

    /// The next lines as they are written, each with its line break: one, and more while they are small.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        const BATCH: usize = 64 * 1024;
        let first = self.lines.pop_front()?;
        self.taken += 1;
        self.bytes -= first.len();
        let mut batch = BytesMut::with_capacity(first.len() + 1);
        batch.put(first);
        batch.put_u8(b'\n');
        while let Some(line) = self.lines.pop_front_if(|line| batch.len() + line.len() < BATCH) {
            self.taken += 1;
            self.bytes -= line.len();
            batch.put(line);
            batch.put_u8(b'\n');
        }
        Some(batch.freeze())
    }

    /// Something of what was handed out last has gone to the server.
    pub(crate) fn accepted(&mut self) {
        self.accepted = self.taken;
    }

    /// The number of the line that was taken in last.
    pub(crate) fn last(&self) -> u64 {
        self.offered
    }

    /// Whether nothing of the line with this number has gone to the server.
    pub(crate) fn is_unread(&self, line: u64) -> bool {
        line > self.accepted
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.lines = VecDeque::new();
        self.bytes = 0;
    }

    fn push(&mut self, line: Bytes, limits: Limits) -> bool {
        let fits = self.lines.len() < limits.messages && self.bytes.saturating_add(line.len()) <= limits.bytes;
        if fits || self.lines.is_empty() {
            self.bytes += line.len();
            self.offered += 1;
            self.lines.push_back(line);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(messages: usize, bytes: usize) -> Outbox {
        Outbox::new(Limits { messages, bytes })
    }

    #[test]
    fn lines_come_out_in_order_each_with_its_line_break() {
        let mut outbox = outbox(10, 100);
        assert!(outbox.offer("a".into()) && outbox.offer("b".into()));
        assert_eq!(outbox.take(), Some("a\nb\n".into()));
        assert_eq!(outbox.take(), None);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_clients_and_has_room_for_the_bridge() {
        let mut outbox = outbox(2, 100);
        assert!(outbox.offer("a".into()) && outbox.offer("b".into()));
        assert!(!outbox.offer("c".into()));
        assert!(outbox.offer_own("d".into()) && outbox.offer_own("e".into()));
        assert!(!outbox.offer_own("f".into()));
        assert_eq!(outbox.take(), Some("a\nb\nd\ne\n".into()));
        assert!(outbox.offer("g".into()));
    }

    #[test]
    fn bytes_are_limited_but_one_message_always_fits() {
        let mut outbox = outbox(10, 4);
        assert!(outbox.offer("123456".into()));
        assert!(!outbox.offer("x".into()));
        assert!(outbox.take().is_some());
        assert!(outbox.offer("1234".into()));
        assert!(!outbox.offer("5".into()));
    }

    #[test]
    fn a_line_is_unread_until_something_of_its_batch_has_gone_out() {
        let mut outbox = outbox(10, 100);
        assert!(outbox.offer("a".into()));
        let first = outbox.last();
        assert!(outbox.take().is_some() && outbox.is_unread(first));
        assert!(outbox.offer("b".into()));
        let second = outbox.last();
        outbox.accepted();
        assert!(!outbox.is_unread(first) && outbox.is_unread(second));
        outbox.clear();
        assert!(outbox.is_unread(second));
    }

    #[test]
    fn a_batch_is_bounded() {
        let mut outbox = outbox(10, 1 << 20);
        let line = Bytes::from(vec![b'x'; 40 * 1024]);
        assert!(outbox.offer(line.clone()) && outbox.offer(line.clone()) && outbox.offer("y".into()));
        assert_eq!(outbox.take().map(|batch| batch.len()), Some(line.len() + 1));
        assert_eq!(outbox.take().map(|batch| batch.len()), Some(line.len() + 1 + 2));
    }
}
