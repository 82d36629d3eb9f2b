//! Readers that detach from streams and resume them.

use super::{EventId, Reader, StreamId, StreamKind, StreamMessage, StreamMessageKind, Streams};
use crate::{jsonrpc, modern::error::INTERNAL};

impl Streams {
    /// Detaches a reader. Returns unread messages that may go to another stream, and responses that
    /// no client can resume. A message that an earlier reader was given stays on its stream.
    pub(crate) fn detach(&mut self, reader: Reader) -> Vec<StreamMessage> {
        let id = reader.stream;
        let Some(stream) = self.stream_of(reader) else {
            return Vec::new();
        };
        stream.attached = false;
        stream.waker = None;
        let mut unread = Vec::new();
        if stream.primed {
            while let Some(queued) = stream.queue.remove_new(|kind| !kind.belongs_to_stream()) {
                unread.push(queued);
            }
        }
        unread.iter().for_each(|queued| self.release(queued));
        let mut unread: Vec<_> = unread.into_iter().map(|queued| queued.message).collect();
        self.attached -= 1;
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        self.retain_pending(id);
        let resumable = |stream: &super::Stream| stream.primed && !stream.is_empty_listener();
        if !self.all.get(&id).is_some_and(resumable) {
            unread.extend(self.remove(id));
        }
        self.trim_replay_buffer();
        unread
    }

    /// Attaches a new reader to a stream behind an event. Returns the questions that had waited for
    /// a stream and are on this one now; `None` if the stream is gone.
    pub(crate) fn resume(&mut self, from: &EventId) -> Option<(Reader, Vec<u64>)> {
        let id = from.stream;
        if from.epoch != self.epoch {
            return None;
        }
        // An id with other requests is made up.
        let stream = self
            .all
            .get_mut(&id)
            .filter(|stream| stream.primed && stream.requests == from.requests)?;
        stream.generation += 1;
        stream.queue.seek(from.position);
        // Messages to replay leave the buffer and become pending, so that no eviction can take them
        // from the reader.
        for queued in stream.queue.pending_mut() {
            if let Some(seq) = queued.replay_seq.take() {
                let size = queued.message.line.len();
                self.replay_buffer.remove(seq, size);
                self.bytes += size;
            }
        }
        let reader = Reader {
            stream: id,
            generation: stream.generation,
        };
        // A listener that ended to make room for another one reopens.
        stream.ended &= stream.kind != StreamKind::Listener;
        let (kind, ended) = (stream.kind, stream.ended);
        self.wakers.extend(stream.waker.take());
        if !std::mem::replace(&mut stream.attached, true) {
            self.attached += 1;
        }
        let takes_waiting = match kind {
            _ if ended => false,
            StreamKind::Listener => {
                if !self.listeners.contains(&id) {
                    self.end_oldest_listener_at_limit();
                }
                self.listeners.insert(id);
                true
            }
            StreamKind::Exchange { .. } => {
                self.exchanges.insert(id);
                true
            }
            StreamKind::ResponseOnly { .. } => false,
        };
        let placed = takes_waiting.then(|| self.attach_waiting(id));
        Some((reader, placed.unwrap_or_default()))
    }

    /// True if a stream only waits for its client to resume it.
    pub(crate) fn is_retained(&self, id: StreamId) -> bool {
        self.all
            .get(&id)
            .is_some_and(|stream| !stream.attached && (stream.ended || stream.kind == StreamKind::Listener))
    }

    /// Removes a retained stream that no client has resumed in time. Returns its pending messages.
    pub(crate) fn expire(&mut self, id: StreamId) -> Vec<StreamMessage> {
        if self.is_retained(id) {
            self.remove(id)
        } else {
            Vec::new()
        }
    }

    /// Removes a stream with everything on it.
    pub(crate) fn discard(&mut self, id: StreamId) {
        if let Some(stream) = self.all.get_mut(&id)
            && std::mem::take(&mut stream.attached)
        {
            self.attached -= 1;
        }
        self.end(id);
        self.remove(id);
    }

    pub(crate) fn exists(&self, id: StreamId) -> bool {
        self.all.contains_key(&id)
    }

    /// Begins the event stream of a reader. With `prime` its client gets an event id and can resume
    /// from now on, else from the first event. Returns the current position, or `None` if another
    /// reader has replaced this one.
    pub(crate) fn begin_events(&mut self, reader: Reader, prime: bool) -> Option<EventId> {
        let epoch = self.epoch;
        let stream = self.stream_of(reader)?;
        stream.streaming = true;
        stream.primed |= prime && stream.resumable;
        let requests = stream.requests.clone();
        // The stream was refused after its exchange had decided on events.
        if let Some(why) = stream.refusal.take() {
            // Only clients of 2026-07-28 cannot resume, and have another code for it.
            let code = if stream.resumable {
                jsonrpc::UNAVAILABLE
            } else {
                INTERNAL
            };
            for request in requests.ids() {
                let line = jsonrpc::error(request.raw(), code, &why.to_string());
                let kind = StreamMessageKind::Response;
                self.push(reader.stream, StreamMessage { kind, link: 0, line });
            }
        }
        let stream = self.stream_of(reader)?;
        Some(stream.event_id(epoch, reader.stream))
    }

    /// True if nothing is kept here that a new instance would not have.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty() && self.waiting.is_empty()
    }

    /// The primed streams removed since the last call.
    pub(crate) fn take_removed(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.removed)
    }

    /// Removes a stream. Returns its pending messages.
    pub(super) fn remove(&mut self, id: StreamId) -> Vec<StreamMessage> {
        let Some(mut stream) = self.all.remove(&id) else {
            return Vec::new();
        };
        if stream.primed {
            self.removed.push(id);
        }
        for queued in stream.queue.take_delivered() {
            self.release(&queued);
        }
        let pending = stream.queue.take();
        pending.iter().for_each(|queued| self.release(queued));
        pending.into_iter().map(|queued| queued.message).collect()
    }
}
