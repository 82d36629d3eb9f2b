//! A bounded queue of lines for the server, in order.
//!
//! The limits expose a server that stops reading: a client message that does not fit is rejected,
//! so that the client learns of it. Messages of the bridge itself (cancellations, errors) may use
//! twice the limits, because they end waits; beyond that they are dropped.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::config::QueueLimits;

#[derive(Debug)]
pub(crate) struct Outbox {
    limits: QueueLimits,
    lines: VecDeque<Line>,
    /// The bytes of `lines` without line breaks.
    bytes: usize,
    /// The number of lines pushed so far. Lines are numbered from 1 in this order.
    pushed: u64,
    taken: u64,
    /// The number of the last line of which the server may have read something.
    written: u64,
    /// The calls in the last chunk.
    chunk_calls: Vec<u64>,
}

#[derive(Debug)]
struct Line {
    text: Bytes,
    /// The call that it sends.
    call: Option<u64>,
}

impl Outbox {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            lines: VecDeque::new(),
            bytes: 0,
            pushed: 0,
            taken: 0,
            written: 0,
            chunk_calls: Vec::new(),
        }
    }

    /// Queues a client message; `false` if it does not fit.
    #[must_use]
    pub(crate) fn push(&mut self, line: Bytes) -> bool {
        self.push_within(Line { text: line, call: None }, 1)
    }

    /// Queues a call; `false` if it does not fit.
    #[must_use]
    pub(crate) fn push_call(&mut self, line: Bytes, call: u64) -> bool {
        let call = Some(call);
        self.push_within(Line { text: line, call }, 1)
    }

    /// Queues a message of the bridge itself; `false` if it does not fit.
    #[must_use]
    pub(crate) fn push_own(&mut self, line: Bytes) -> bool {
        self.push_within(Line { text: line, call: None }, 2)
    }

    /// Takes the next lines to write, each with its line break: one, or several small ones.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        const CHUNK_SIZE: usize = 64 * 1024;
        let mut chunk = BytesMut::new();
        while let Some(line) = self
            .lines
            .pop_front_if(|line| chunk.is_empty() || chunk.len() + line.text.len() < CHUNK_SIZE)
        {
            self.taken += 1;
            self.bytes -= line.text.len();
            self.chunk_calls.extend(line.call);
            chunk.reserve(line.text.len() + 1);
            chunk.put(line.text);
            chunk.put_u8(b'\n');
        }
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// Takes the next line, without its line break, and the call that it sends.
    #[cfg(feature = "http")]
    pub(crate) fn take_line(&mut self) -> Option<(Bytes, Option<u64>)> {
        let line = self.lines.pop_front()?;
        self.taken += 1;
        self.written = self.taken;
        self.bytes -= line.text.len();
        Some((line.text, line.call))
    }

    /// Records that part of the last chunk has been written. Returns the calls in it.
    pub(crate) fn mark_written(&mut self) -> Vec<u64> {
        self.written = self.taken;
        std::mem::take(&mut self.chunk_calls)
    }

    /// The number of the line that was pushed last.
    pub(crate) fn last_number(&self) -> u64 {
        self.pushed
    }

    /// True if no part of the line with this number has been written.
    pub(crate) fn is_unwritten(&self, line: u64) -> bool {
        line > self.written
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.lines = VecDeque::new();
        self.bytes = 0;
    }

    /// Queues a line within `factor` times the limits.
    fn push_within(&mut self, line: Line, factor: usize) -> bool {
        let fits = self.lines.len() < self.limits.messages.saturating_mul(factor)
            && self.bytes.saturating_add(line.text.len()) <= self.limits.bytes.saturating_mul(factor);
        if fits || self.lines.is_empty() {
            self.bytes += line.text.len();
            self.pushed += 1;
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
        Outbox::new(QueueLimits { messages, bytes })
    }

    #[test]
    fn lines_are_taken_in_order_with_line_breaks() {
        let mut outbox = outbox(10, 100);
        assert!(outbox.push("a".into()) && outbox.push("b".into()));
        assert_eq!(outbox.take(), Some("a\nb\n".into()));
        assert_eq!(outbox.take(), None);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_full_queue_rejects_clients_and_has_room_for_the_bridge() {
        let mut outbox = outbox(2, 100);
        assert!(outbox.push("a".into()) && outbox.push("b".into()));
        assert!(!outbox.push("c".into()));
        assert!(outbox.push_own("d".into()) && outbox.push_own("e".into()));
        assert!(!outbox.push_own("f".into()));
        assert_eq!(outbox.take(), Some("a\nb\nd\ne\n".into()));
        assert!(outbox.push("g".into()));
    }

    #[test]
    fn bytes_are_limited_but_a_single_message_always_fits() {
        let mut outbox = outbox(10, 4);
        assert!(outbox.push("123456".into()));
        assert!(!outbox.push("x".into()));
        assert!(outbox.take().is_some());
        assert!(outbox.push("1234".into()));
        assert!(!outbox.push("5".into()));
    }

    #[test]
    fn a_line_is_unwritten_until_part_of_its_chunk_is_written() {
        let mut outbox = outbox(10, 100);
        assert!(outbox.push("a".into()));
        let first = outbox.last_number();
        assert!(outbox.take().is_some() && outbox.is_unwritten(first));
        assert!(outbox.push("b".into()));
        let second = outbox.last_number();
        outbox.mark_written();
        assert!(!outbox.is_unwritten(first) && outbox.is_unwritten(second));
        outbox.clear();
        assert!(outbox.is_unwritten(second));
    }

    #[test]
    fn a_chunk_is_bounded() {
        let mut outbox = outbox(10, 1 << 20);
        let line = Bytes::from(vec![b'x'; 40 * 1024]);
        assert!(outbox.push(line.clone()) && outbox.push(line.clone()) && outbox.push("y".into()));
        assert_eq!(outbox.take().map(|chunk| chunk.len()), Some(line.len() + 1));
        assert_eq!(outbox.take().map(|chunk| chunk.len()), Some(line.len() + 1 + 2));
    }
}
