//! What is kept of streams for replay, and what becomes of a stream when its reader leaves or another one comes.
//!
//! What is kept has a stamp: on a stream with a reader what has been handed out, on one without everything. Stamps grow within a
//! stream as places do, so the message with the lowest stamp of all is the first of its stream, and taking it away never leaves a hole.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Item, Kind, Reader, StreamId, Streams, log::Slot};
use crate::{config::Limits, event_id::EventId, id::Key};

/// The account of what is kept.
#[derive(Debug)]
pub(super) struct Kept {
    limits: Limits,
    /// The streams that the stamps are on.
    order: BTreeMap<u64, StreamId>,
    bytes: usize,
    next: u64,
    /// Streams that might have been resumed and are gone, since this was asked last.
    gone: Vec<StreamId>,
}

impl Kept {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            order: BTreeMap::new(),
            bytes: 0,
            next: 0,
            gone: Vec::new(),
        }
    }

    fn stamp(&mut self, stream: StreamId, size: usize) -> u64 {
        let stamp = self.next;
        self.next += 1;
        self.order.insert(stamp, stream);
        self.bytes += size;
        stamp
    }

    fn is_over(&self) -> bool {
        // One message is kept whatever its size.
        self.order.len() > self.limits.messages.max(1) || (self.order.len() > 1 && self.bytes > self.limits.bytes)
    }
}

impl Streams {
    /// The reader of a stream is gone. Gives back what finds its way anew, and answers that nobody can come back for.
    pub(crate) fn close(&mut self, reader: Reader) -> Vec<Item> {
        let id = reader.stream;
        let Some(stream) = self.reading(reader) else {
            return Vec::new();
        };
        stream.attached = false;
        stream.waker = None;
        let mut loose = Vec::new();
        if stream.primed {
            let mut free = Vec::new();
            while let Some(slot) = stream.log.remove(|item| !item.is_bound()) {
                free.push(slot);
            }
            for slot in free {
                self.release(&slot);
                loose.push(slot.item);
            }
        }
        self.attached -= 1;
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        self.keep_rest(id);
        let Some(stream) = self.all.get(&id) else {
            return loose;
        };
        let worthless = match stream.kind {
            Kind::Listener => stream.log.is_empty(),
            Kind::Exchange { .. } => false,
        };
        if !stream.primed || worthless {
            loose.extend(self.remove(id));
        }
        self.kept_shrinks();
        loose
    }

    /// Gives a stream another reader, just behind a place. Gives back the requests of the server that had been waiting and are on it now.
    /// `None` if there is no such stream any more.
    pub(crate) fn resume(&mut self, from: &EventId) -> Option<(Reader, Vec<Key>)> {
        let id = StreamId(from.stream);
        if from.epoch != self.epoch {
            return None;
        }
        let stream = self.all.get_mut(&id).filter(|stream| stream.primed)?;
        // Whoever made up the rest of an id has not read this stream.
        if stream.asked != from.asked {
            return None;
        }
        stream.turn += 1;
        stream.log.go_to(from.place);
        // What is to be read again is not kept but waits, so that it cannot be forgotten under the eyes of its reader.
        for slot in stream.log.waiting_mut() {
            if let Some(stamp) = slot.stamp.take() {
                let size = slot.item.line().len();
                self.kept.order.remove(&stamp);
                self.kept.bytes -= size;
                self.bytes += size;
            }
        }
        let reader = Reader {
            stream: id,
            turn: stream.turn,
        };
        // A listener that had to make room for another is listened to again.
        stream.ended &= stream.kind != Kind::Listener;
        let (kind, ended) = (stream.kind, stream.ended);
        self.due.extend(stream.waker.take());
        if !std::mem::replace(&mut stream.attached, true) {
            self.attached += 1;
        }
        let adopts = match kind {
            _ if ended => false,
            Kind::Listener => {
                if !self.listeners.contains(&id) {
                    self.make_room();
                }
                self.listeners.insert(id);
                true
            }
            Kind::Exchange { private: true, .. } => false,
            Kind::Exchange { .. } => {
                self.exchanges.insert(id);
                true
            }
        };
        let adopted = if adopts { self.adopt(id) } else { Vec::new() };
        Some((reader, adopted))
    }

    /// Whether a stream is there only for a reader that may come back: it waits for nothing else.
    pub(crate) fn is_idle(&self, id: StreamId) -> bool {
        self.all
            .get(&id)
            .is_some_and(|stream| !stream.attached && (stream.ended || stream.kind == Kind::Listener))
    }

    /// Forgets a stream for which nobody has come back in time. Gives back what it held.
    pub(crate) fn forget(&mut self, id: StreamId) -> Vec<Item> {
        if self.is_idle(id) { self.remove(id) } else { Vec::new() }
    }

    /// The streams that might have been resumed and are gone, since this was asked last.
    pub(crate) fn take_gone(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.kept.gone)
    }

    /// How many messages are kept, and their bytes.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.kept.order.len(), self.kept.bytes)
    }

    /// How many streams there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// How many streams are there only for a reader that may come back.
    #[cfg(test)]
    pub(crate) fn count_idle(&self) -> usize {
        self.all.keys().filter(|id| self.is_idle(**id)).count()
    }

    /// The stream that an event id names.
    #[cfg(test)]
    pub(crate) fn stream_of(id: &EventId) -> StreamId {
        StreamId(id.stream)
    }

    /// Adds to a stream whatever its limits are.
    pub(super) fn append(&mut self, id: StreamId, item: Item) {
        let Some(stream) = self.all.get_mut(&id) else {
            return;
        };
        let size = item.line().len();
        let stamp = if stream.attached {
            self.bytes += size;
            None
        } else {
            Some(self.kept.stamp(id, size))
        };
        stream.log.push(item, stamp);
        self.due.extend(stream.waker.take());
        self.kept_shrinks();
    }

    /// The next message of a stream. It is kept if somebody may come back for it.
    pub(super) fn hand_out(&mut self, id: StreamId) -> Option<Bytes> {
        let stream = self.all.get_mut(&id)?;
        if !stream.primed {
            let slot = stream.log.pop()?;
            self.release(&slot);
            return Some(slot.item.line().clone());
        }
        let slot = stream.log.hand_out()?;
        let size = slot.item.line().len();
        slot.stamp = Some(self.kept.stamp(id, size));
        self.bytes -= size;
        Some(slot.item.line().clone())
    }

    /// Takes a message off the books.
    pub(super) fn release(&mut self, slot: &Slot) {
        let size = slot.item.line().len();
        match slot.stamp {
            Some(stamp) => {
                self.kept.order.remove(&stamp);
                self.kept.bytes -= size;
            }
            None => self.bytes -= size,
        }
    }

    /// Lets the oldest go of what is kept until it is within its limits.
    pub(super) fn kept_shrinks(&mut self) {
        while self.kept.is_over() {
            let Some(id) = self.kept.order.first_entry().map(|first| *first.get()) else {
                return;
            };
            let Some(slot) = self.all.get_mut(&id).and_then(|stream| stream.log.pop()) else {
                return;
            };
            self.release(&slot);
            let Some(stream) = self.all.get_mut(&id) else {
                return;
            };
            let answered = matches!(slot.item, Item::Answer(_));
            // Without an answer that it once had a stream cannot be told from its beginning again: whoever comes back learns
            // that the answer is lost. A reader that is there goes on.
            if answered && stream.attached {
                stream.primed = false;
                self.keep_nothing(id);
            } else if !stream.attached && (answered || (stream.kind == Kind::Listener && stream.log.is_empty())) {
                self.remove(id);
            }
        }
    }

    /// What waits on a stream without a reader is kept like what has been handed out.
    fn keep_rest(&mut self, id: StreamId) {
        if let Some(stream) = self.all.get_mut(&id).filter(|stream| stream.primed) {
            for slot in stream.log.waiting_mut().filter(|slot| slot.stamp.is_none()) {
                let size = slot.item.line().len();
                slot.stamp = Some(self.kept.stamp(id, size));
                self.bytes -= size;
            }
        }
    }

    /// Nothing is kept any more of this stream, which has a reader.
    fn keep_nothing(&mut self, id: StreamId) {
        let Some(stream) = self.all.get_mut(&id) else {
            return;
        };
        let handed = stream.log.take_handed();
        handed.iter().for_each(|slot| self.release(slot));
    }

    fn remove(&mut self, id: StreamId) -> Vec<Item> {
        let Some(mut stream) = self.all.remove(&id) else {
            return Vec::new();
        };
        if stream.primed {
            self.kept.gone.push(id);
        }
        let waiting = stream.log.count_waiting();
        let slots = stream.log.take();
        slots.iter().for_each(|slot| self.release(slot));
        let handed = slots.len() - waiting;
        slots.into_iter().skip(handed).map(|slot| slot.item).collect()
    }
}
