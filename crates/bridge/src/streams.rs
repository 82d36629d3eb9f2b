//! The streams toward clients: what waits on each, what is kept of each, and on which a message goes.
//!
//! A stream belongs to one POST (an exchange) or one GET (a listener). Every message is put on exactly one stream (MCP 2025-11-25,
//! "Multiple Connections"). A message that belongs to no request goes to the newest listener, else to the newest exchange that
//! is still unanswered, else it waits for the next stream of either sort. What a reader that leaves has not been given finds
//! its way anew, but for what belongs to the request of its stream.
//!
//! A stream has one reader at a time. Once it has been primed (its client has an event id) it outlives its reader: what it has handed
//! out is kept for replay, and what belongs to its request goes on to gather. A later reader goes on from the place that it names
//! and takes the stream over from one that may still seem to be there.
//!
//! Limits: so many waiting messages a stream, so many waiting bytes over all; so many messages and bytes over all that
//! are kept for replay. Waiting notifications give way, oldest first; a request of the server is handed back; for answers it can be
//! asked beforehand whether they fit. Of what is kept the oldest goes first, and with an answer goes its stream.
//!
//! No io and no time: a stream is polled with a context, and wakers that are due are collected for the caller to wake.
//! `log` is the queue of one stream, `lent` counts what is on its way to clients, `keep` is what becomes of a stream whose reader is gone.

mod keep;
mod lent;
mod log;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

pub(crate) use self::lent::Lent;
use self::{keep::Kept, log::Log};
use crate::{
    config::{Config, Limits},
    event_id::{Asked, EventId},
    id::Key,
};

/// Names a stream of one bridge. Younger streams have greater names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// One reader of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// What it reads.
    pub(crate) stream: StreamId,
    /// The how-many-eth it is.
    turn: u64,
}

/// A message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A notification.
    Notification {
        /// The message.
        line: Bytes,
        /// What it is about.
        about: About,
    },
    /// A request of the server.
    Ask {
        /// Its id.
        key: Key,
        /// The message.
        line: Bytes,
    },
    /// An answer to a request of the stream.
    Answer(Bytes),
}

/// What a notification is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// The request of its stream: it means nothing on another.
    Request,
    /// The progress of something that is not known here. Of two that wait for somebody to read them the newer says it all.
    Progress(Key),
    /// Anything else.
    Other,
}

/// What comes off a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its place.
    pub(crate) id: EventId,
    /// The message, on one line.
    pub(crate) line: Bytes,
    /// Whether it is the last one.
    pub(crate) last: bool,
}

/// What an exchange turns out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Its answers, before which there was nothing. They have been taken off the stream, which is over.
    Whole(Vec<Bytes>),
    /// A stream.
    Events,
}

/// Where a message went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// On a stream.
    Placed,
    /// Among those that wait for a stream.
    Waiting,
    /// Nowhere: there is no room.
    Refused,
}

/// All streams of a bridge.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Tells the event ids of this bridge from those of another.
    epoch: u64,
    backlog: Limits,
    max_unread: usize,
    max_listeners: usize,
    next: u64,
    all: BTreeMap<StreamId, Stream>,
    /// How many of `all` have a reader.
    attached: usize,
    /// Those of `all` that were made by GET, have a reader and have not been ended.
    listeners: BTreeSet<StreamId>,
    /// Those of `all` that wait for an answer, have a reader and may carry other messages meanwhile.
    exchanges: BTreeSet<StreamId>,
    waiting: VecDeque<Item>,
    /// The bytes of all items in `all` without a stamp and of those in `waiting`.
    bytes: usize,
    /// The bytes that readers have taken off and that are not written yet.
    lent: Lent,
    kept: Kept,
    dropped: usize,
    due: Vec<Waker>,
}

#[derive(Debug)]
struct Stream {
    log: Log,
    asked: Asked,
    kind: Kind,
    /// Nothing is added any more; the stream ends when nothing waits.
    ended: bool,
    /// Its client has an event id of it, so it may come back.
    primed: bool,
    /// The reader, if there is one now, has this turn.
    turn: u64,
    attached: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Listener,
    Exchange {
        /// How many answers are to come.
        pending: usize,
        /// Whether it carries its answers and nothing else.
        private: bool,
    },
}

impl Item {
    fn line(&self) -> &Bytes {
        match self {
            Self::Notification { line, .. } | Self::Ask { line, .. } | Self::Answer(line) => line,
        }
    }

    fn is_ask(&self, wanted: &Key) -> bool {
        matches!(self, Self::Ask { key, .. } if key == wanted)
    }

    /// Whether it means nothing on another stream.
    fn is_bound(&self) -> bool {
        matches!(
            self,
            Self::Answer(_)
                | Self::Notification {
                    about: About::Request,
                    ..
                }
        )
    }

    fn is_progress(&self, wanted: &Key) -> bool {
        matches!(self, Self::Notification { about: About::Progress(key), .. } if key == wanted)
    }
}

impl Streams {
    /// No streams.
    pub(crate) fn new(epoch: u64, config: &Config) -> Self {
        Self {
            epoch,
            backlog: config.backlog,
            max_unread: config.max_unread,
            max_listeners: config.max_listeners.max(1),
            next: 0,
            all: BTreeMap::new(),
            attached: 0,
            listeners: BTreeSet::new(),
            exchanges: BTreeSet::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            lent: Lent::default(),
            kept: Kept::new(config.replay),
            dropped: 0,
            due: Vec::new(),
        }
    }

    /// Opens the stream of `pending` requests. Gives back the requests of the server that had been waiting and are on it now.
    pub(crate) fn open_exchange(&mut self, asked: Asked, pending: usize) -> (Reader, Vec<Key>) {
        let private = false;
        let reader = self.open(asked, Kind::Exchange { pending, private });
        self.exchanges.insert(reader.stream);
        (reader, self.adopt(reader.stream))
    }

    /// Opens a stream that carries the answers to its requests and nothing else.
    pub(crate) fn open_private(&mut self, asked: Asked, pending: usize) -> Reader {
        let private = true;
        self.open(asked, Kind::Exchange { pending, private })
    }

    /// Opens the stream of a GET, as [`open_exchange`](Self::open_exchange). If there are too many, the oldest ends.
    pub(crate) fn open_listener(&mut self) -> (Reader, Vec<Key>) {
        self.make_room();
        let reader = self.open(Asked::default(), Kind::Listener);
        self.listeners.insert(reader.stream);
        (reader, self.adopt(reader.stream))
    }

    /// How many streams have a reader.
    pub(crate) fn count_attached(&self) -> usize {
        self.attached
    }

    /// Whether a stream has a reader.
    pub(crate) fn is_attached(&self, id: StreamId) -> bool {
        self.all.get(&id).is_some_and(|stream| stream.attached)
    }

    /// Whether an answer of this size fits on a stream. On one without a reader it is kept, for which there are other limits.
    pub(crate) fn has_room(&self, id: StreamId, size: usize) -> bool {
        let unread = self.bytes.saturating_add(self.lent.bytes());
        unread == 0
            || unread.saturating_add(size) <= self.max_unread
            || self.all.get(&id).is_none_or(|stream| !stream.attached)
    }

    /// The account of what is on its way to clients.
    pub(crate) fn lent(&self) -> &Lent {
        &self.lent
    }

    /// Puts an answer on a stream, which ends with the last one. `false` if the stream is gone.
    pub(crate) fn answer(&mut self, id: StreamId, line: Bytes) -> bool {
        let Some(stream) = self.all.get_mut(&id).filter(|stream| !stream.ended) else {
            return false;
        };
        if let Kind::Exchange { pending, .. } = &mut stream.kind {
            *pending = pending.saturating_sub(1);
            if *pending == 0 {
                self.end(id);
            }
        }
        self.append(id, Item::Answer(line));
        true
    }

    /// Puts a notification on the stream of the request that it belongs to. `false` if that stream is gone.
    pub(crate) fn notify(&mut self, id: StreamId, line: Bytes) -> bool {
        let about = About::Request;
        match self.all.get(&id) {
            Some(stream) if !stream.ended => {
                self.admit(id, Item::Notification { line, about });
                true
            }
            Some(_) | None => false,
        }
    }

    /// Puts a message that belongs to no request where it is read soonest.
    pub(crate) fn route(&mut self, item: Item) -> Routed {
        let target = self.listeners.last().or(self.exchanges.last()).copied();
        let (admitted, placed) = match target {
            Some(id) => (self.admit(id, item), Routed::Placed),
            None => (self.wait(item), Routed::Waiting),
        };
        if admitted { placed } else { Routed::Refused }
    }

    /// Takes back a request of the server that no client has read yet; `false` if there is none.
    pub(crate) fn withdraw(&mut self, key: &Key) -> bool {
        if let Some(at) = self.waiting.iter().position(|item| item.is_ask(key)) {
            self.bytes -= self.waiting.remove(at).map_or(0, |item| item.line().len());
            return true;
        }
        let mut streams = self.all.values_mut();
        let Some(slot) = streams.find_map(|stream| stream.log.remove(|item| item.is_ask(key))) else {
            return false;
        };
        self.release(&slot);
        true
    }

    /// Ends all listeners cleanly and drops what waits. Exchanges end with their answers.
    pub(crate) fn end_listeners(&mut self) {
        while let Some(id) = self.listeners.pop_first() {
            self.end(id);
        }
        self.bytes -= self.waiting.drain(..).map(|item| item.line().len()).sum::<usize>();
    }

    /// What an exchange turns out to be, once that is certain: its answers are all there, or something else came before.
    pub(crate) fn poll_form(&mut self, reader: Reader, context: &Context<'_>) -> Poll<Form> {
        let Some(stream) = self.reading(reader) else {
            return Poll::Ready(Form::Whole(Vec::new()));
        };
        if stream.log.waiting().any(|item| !matches!(item, Item::Answer(_))) {
            return Poll::Ready(Form::Events);
        }
        if !stream.ended {
            stream.wait(context);
            return Poll::Pending;
        }
        let slots = stream.log.take();
        slots.iter().for_each(|slot| self.release(slot));
        let lines = slots.into_iter().map(|slot| slot.item.line().clone());
        Poll::Ready(Form::Whole(lines.collect()))
    }

    /// From now on the client of this reader has an event id, so the stream may be resumed. Gives its place.
    pub(crate) fn prime(&mut self, reader: Reader) -> Option<EventId> {
        let epoch = self.epoch;
        let stream = self.reading(reader)?;
        stream.primed = true;
        Some(stream.event_id(epoch, reader.stream))
    }

    /// The next event of a stream; `None` once it has ended, or has been taken over by another reader.
    pub(crate) fn poll(&mut self, reader: Reader, context: &Context<'_>) -> Poll<Option<Event>> {
        let epoch = self.epoch;
        let Some(stream) = self.reading(reader) else {
            return Poll::Ready(None);
        };
        if stream.log.count_waiting() == 0 {
            if stream.ended {
                return Poll::Ready(None);
            }
            stream.wait(context);
            return Poll::Pending;
        }
        let Some(line) = self.hand_out(reader.stream) else {
            return Poll::Ready(None);
        };
        let event = self.reading(reader).map(|stream| Event {
            id: stream.event_id(epoch, reader.stream),
            line,
            last: stream.ended && stream.log.count_waiting() == 0,
        });
        self.kept_shrinks();
        Poll::Ready(event)
    }

    /// The readers that have something to read, to be woken once the lock around this is free.
    pub(crate) fn take_due(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.due)
    }

    /// How many notifications have been dropped since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn open(&mut self, asked: Asked, kind: Kind) -> Reader {
        let stream = StreamId(self.next);
        self.next += 1;
        self.attached += 1;
        self.all.insert(
            stream,
            Stream {
                log: Log::default(),
                asked,
                kind,
                ended: false,
                primed: false,
                turn: 0,
                attached: true,
                waker: None,
            },
        );
        Reader { stream, turn: 0 }
    }

    fn make_room(&mut self) {
        if self.listeners.len() >= self.max_listeners
            && let Some(oldest) = self.listeners.pop_first()
        {
            self.end(oldest);
        }
    }

    /// The stream of a reader that has not been replaced.
    fn reading(&mut self, reader: Reader) -> Option<&mut Stream> {
        self.all
            .get_mut(&reader.stream)
            .filter(|stream| stream.attached && stream.turn == reader.turn)
    }

    fn adopt(&mut self, id: StreamId) -> Vec<Key> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut asks = Vec::new();
        if let Some(stream) = self.all.get_mut(&id) {
            for item in waiting {
                if let Item::Ask { key, .. } = &item {
                    asks.push(key.clone());
                }
                // It counts as waiting here as it did there.
                stream.log.push(item, None);
            }
        }
        asks
    }

    fn end(&mut self, id: StreamId) {
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        if let Some(stream) = self.all.get_mut(&id) {
            stream.ended = true;
            self.due.extend(stream.waker.take());
        }
    }

    /// Adds to a stream, making room by dropping its oldest notifications. `false` if there is no room; a notification that
    /// finds none counts as dropped.
    fn admit(&mut self, id: StreamId, item: Item) -> bool {
        let size = item.line().len();
        loop {
            let Some(stream) = self.all.get_mut(&id) else {
                return false;
            };
            // On a stream without a reader bytes are bounded by what may be kept.
            let full = stream.log.count_waiting() >= self.backlog.messages
                || (stream.attached && self.bytes > 0 && self.bytes.saturating_add(size) > self.backlog.bytes);
            if !full {
                break;
            }
            let oldest = stream.log.remove(|item| matches!(item, Item::Notification { .. }));
            let Some(removed) = oldest else {
                self.dropped += usize::from(matches!(item, Item::Notification { .. }));
                return false;
            };
            self.release(&removed);
            self.dropped += 1;
        }
        self.append(id, item);
        true
    }

    /// Adds to those that wait for a stream, as [`admit`](Self::admit).
    fn wait(&mut self, item: Item) -> bool {
        let size = item.line().len();
        if let Item::Notification {
            about: About::Progress(token),
            ..
        } = &item
            && let Some(older) = self.waiting.iter().position(|item| item.is_progress(token))
        {
            self.bytes -= self.waiting.remove(older).map_or(0, |item| item.line().len());
        }
        while self.waiting.len() >= self.backlog.messages
            || (self.bytes > 0 && self.bytes.saturating_add(size) > self.backlog.bytes)
        {
            let mut waiting = self.waiting.iter();
            let oldest = waiting.position(|item| matches!(item, Item::Notification { .. }));
            let Some(removed) = oldest.and_then(|at| self.waiting.remove(at)) else {
                self.dropped += usize::from(matches!(item, Item::Notification { .. }));
                return false;
            };
            self.bytes -= removed.line().len();
            self.dropped += 1;
        }
        self.bytes += size;
        self.waiting.push_back(item);
        true
    }
}

impl Stream {
    fn event_id(&self, epoch: u64, id: StreamId) -> EventId {
        EventId {
            epoch,
            stream: id.0,
            place: self.log.place(),
            asked: self.asked.clone(),
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        let same = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()));
        if !same {
            self.waker = Some(context.waker().clone());
        }
    }
}
