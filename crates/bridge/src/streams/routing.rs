//! Routes messages to streams, within the limits of what waits for readers.

use std::iter;

use bytes::Bytes;

use super::{RequestKey, Routed, StreamId, StreamKind, StreamMessage, StreamMessageKind, Streams};

impl Streams {
    /// True if a response of this size fits on a stream. Without a reader the limits of the replay
    /// buffer apply instead.
    pub(crate) fn has_room(&self, id: StreamId, size: usize) -> bool {
        let unread = self.bytes.saturating_add(self.unflushed.bytes());
        unread == 0 || unread.saturating_add(size) <= self.config.max_unflushed || !self.is_attached(id)
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
        self.push(id, StreamMessage { kind, line });
        true
    }

    /// Puts a notification on the stream of its request. `false` if that stream is gone.
    pub(crate) fn notify(&mut self, id: StreamId, line: Bytes) -> bool {
        if self.all.get(&id).is_none_or(|stream| stream.ended) {
            return false;
        }
        let kind = StreamMessageKind::RequestNotification;
        self.push_within_limits(Some(id), StreamMessage { kind, line });
        true
    }

    /// Puts a message without a request on the stream that is most likely read.
    pub(crate) fn route(&mut self, message: StreamMessage) -> Routed {
        let target = self.listeners.last().or(self.exchanges.last()).copied();
        if target.is_none()
            && matches!(message.kind, StreamMessageKind::Progress(_))
            && let Some(superseded) = self.waiting.remove(|waiting| *waiting == message.kind)
        {
            self.release(&superseded);
        }
        match (self.push_within_limits(target, message), target) {
            (false, _) => Routed::Rejected,
            (true, Some(_)) => Routed::Placed,
            (true, None) => Routed::Waiting,
        }
    }

    /// Removes a server request that no client has read; `false` if there is none.
    pub(crate) fn withdraw(&mut self, key: &RequestKey) -> bool {
        let wanted = StreamMessageKind::ServerRequest(key.clone());
        let queues = self.all.values_mut().map(|stream| &mut stream.queue);
        let removed = iter::once(&mut self.waiting)
            .chain(queues)
            .find_map(|queue| queue.remove(|kind| *kind == wanted));
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

    /// Moves the waiting messages to a stream. Returns the server requests among them.
    pub(super) fn attach_waiting(&mut self, id: StreamId) -> Vec<RequestKey> {
        let mut server_requests = Vec::new();
        if let Some(stream) = self.all.get_mut(&id) {
            for queued in self.waiting.take() {
                if let StreamMessageKind::ServerRequest(key) = &queued.message.kind {
                    server_requests.push(key.clone());
                }
                // The byte count includes the message already.
                stream.queue.push(queued.message, None);
            }
        }
        server_requests
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
                || (attached && self.bytes > 0 && self.bytes.saturating_add(size) > self.config.backlog.bytes);
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
