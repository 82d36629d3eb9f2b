//! Routes messages to streams, within the limits of what waits for readers.

use std::{iter, task::Waker};

use bytes::Bytes;

use super::{Routed, StreamId, StreamKind, StreamMessage, StreamMessageKind, Streams};
use crate::tables::links::LinkNumber;

impl Streams {
    /// True if a response of this size fits on a stream. Without a reader the limits of the replay
    /// buffer apply instead.
    pub(crate) fn has_room(&self, id: StreamId, size: usize) -> bool {
        let unread = self.bytes.saturating_add(self.unflushed.bytes());
        let fits = unread.saturating_add(size) <= self.config.max_unflushed && !self.exceeds_memory(size);
        unread == 0 || fits || !self.is_attached(id)
    }

    /// Puts a response on a stream, which ends with the last one. `false` if the stream is gone.
    pub(crate) fn respond(&mut self, id: StreamId, line: Bytes) -> bool {
        let Some(stream) = self.all.get_mut(&id).filter(|stream| !stream.ended) else {
            return false;
        };
        if let StreamKind::Exchange { pending } | StreamKind::ResponseOnly { pending } = &mut stream.kind {
            *pending = pending.saturating_sub(1);
            if *pending == 0 {
                self.end(id);
            }
        }
        let kind = StreamMessageKind::Response;
        self.push(id, StreamMessage { kind, link: 0, line });
        true
    }

    /// Puts a notification on the stream of its request. `false` if that stream is gone.
    pub(crate) fn notify(&mut self, id: StreamId, line: Bytes) -> bool {
        if self.all.get(&id).is_none_or(|stream| stream.ended) {
            return false;
        }
        let kind = StreamMessageKind::RequestNotification;
        self.push_within_limits(Some(id), StreamMessage { kind, link: 0, line });
        true
    }

    /// Puts a message without a request on the stream that is most likely read: the newest
    /// listener, else the newest exchange on the link of the message.
    pub(crate) fn route(&mut self, message: StreamMessage) -> Routed {
        let target = self
            .listeners
            .last()
            .copied()
            .or_else(|| self.newest_exchange_on(message.link));
        match (self.push_within_limits(target, message), target) {
            (false, _) => Routed::Rejected,
            (true, Some(stream)) => Routed::Placed(stream),
            (true, None) => Routed::Waiting,
        }
    }

    /// Removes a question that no reader was ever given; `false` if there is none.
    pub(crate) fn withdraw(&mut self, question: u64) -> bool {
        let wanted = StreamMessageKind::Question(question);
        let queues = self.all.values_mut().map(|stream| &mut stream.queue);
        let removed = iter::once(&mut self.waiting)
            .chain(queues)
            .find_map(|queue| queue.remove_new(|kind| *kind == wanted));
        removed.map(|removed| self.release(&removed)).is_some()
    }

    /// Ends all listeners and drops the waiting messages. Exchanges end with their responses.
    pub(crate) fn end_listeners(&mut self) {
        while let Some(id) = self.listeners.pop_first() {
            self.end(id);
        }
        for dropped in self.waiting.take() {
            self.release(&dropped);
        }
    }

    /// Moves the waiting messages that may go to a stream there: to a listener all, to an exchange
    /// those of its link. Returns the questions among them.
    pub(super) fn attach_waiting(&mut self, id: StreamId) -> Vec<u64> {
        let mut questions = Vec::new();
        if let Some(stream) = self.all.get_mut(&id) {
            for queued in self.waiting.take() {
                let message = queued.message;
                // The byte count includes the message already.
                if stream.kind != StreamKind::Listener && stream.link != Some(message.link) {
                    self.waiting.push(message, None);
                    continue;
                }
                if let StreamMessageKind::Question(number) = message.kind {
                    questions.push(number);
                }
                stream.queue.push(message, None);
                self.wakers.extend(stream.waker.take());
            }
        }
        questions
    }

    /// The wakers of readers with something to read, to be woken outside the lock.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    fn newest_exchange_on(&self, link: LinkNumber) -> Option<StreamId> {
        let mut newest_first = self.exchanges.iter().rev();
        newest_first
            .find(|id| self.all.get(id).is_some_and(|stream| stream.link == Some(link)))
            .copied()
    }

    /// Adds a message to a stream or to those that wait for one, and drops the oldest notifications
    /// to make room. `false` if there is no room; a rejected notification counts as dropped.
    fn push_within_limits(&mut self, target: Option<StreamId>, message: StreamMessage) -> bool {
        let size = message.line.len();
        loop {
            let (queue, attached) = match target {
                None => (&mut self.waiting, true),
                Some(id) => match self.all.get_mut(&id) {
                    Some(stream) => (&mut stream.queue, stream.attached),
                    None => return false,
                },
            };
            // Without a reader the replay buffer limits the bytes.
            let full = queue.count_pending() >= self.config.backlog.messages
                || (attached && self.bytes > 0 && self.bytes.saturating_add(size) > self.config.backlog.bytes)
                || (self.bytes > 0 && self.share.exceeds(self.bytes.saturating_add(size)));
            if !full {
                break;
            }
            let Some(oldest) = queue.remove(StreamMessageKind::is_notification) else {
                self.dropped += usize::from(message.kind.is_notification());
                return false;
            };
            self.release(&oldest);
            self.dropped += 1;
        }
        if let Some(id) = target {
            self.push(id, message);
        } else {
            self.bytes += size;
            self.waiting.push(message, None);
        }
        true
    }
}
