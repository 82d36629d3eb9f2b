//! The open streams toward clients: what waits on each, and on which a message goes.
//!
//! A stream belongs to one POST (an exchange) or one GET (a listener). Every message is put on exactly one stream (MCP 2025-11-25,
//! "Multiple Connections"). A message that belongs to no request goes to the newest listener, else to the newest exchange that
//! is still unanswered, else it waits for the next stream of either sort. What a stream that closes has not handed out finds
//! its way anew, but for what belonged to its own request.
//!
//! Limits: so many messages a stream, so many bytes over all. Notifications give way, oldest first; a request of the
//! server is handed back; an answer always fits, as the number of exchanges is bounded elsewhere.
//!
//! No io and no time: a stream is polled with a context, and wakers that are due are collected for the caller to wake.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

use crate::{config::Limits, id::Key};

/// Names a stream of one bridge. Younger streams have greater names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// A message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A notification; `bound` if it belongs to the request of its stream.
    Notification {
        /// The message.
        line: Bytes,
        /// Whether it means nothing on another stream.
        bound: bool,
    },
    /// A request of the server.
    Ask {
        /// Its id.
        key: Key,
        /// The message.
        line: Bytes,
    },
    /// The answer to the request of the stream, which is the last message on it.
    Answer(Bytes),
}

/// What comes off a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The message, on one line.
    pub(crate) line: Bytes,
    /// Whether it is the last one.
    pub(crate) last: bool,
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
    limits: Limits,
    max_listeners: usize,
    next: u64,
    open: BTreeMap<StreamId, Stream>,
    /// Those of `open` that were made by GET and have not been ended.
    listeners: BTreeSet<StreamId>,
    /// Those of `open` that wait for an answer and may carry other messages meanwhile.
    exchanges: BTreeSet<StreamId>,
    waiting: VecDeque<Item>,
    /// The bytes of all items in `open` and `waiting`.
    bytes: usize,
    dropped: usize,
    due: Vec<Waker>,
}

#[derive(Debug, Default)]
struct Stream {
    queue: VecDeque<Item>,
    /// Nothing is added any more; the stream ends when its queue is empty.
    ended: bool,
    waker: Option<Waker>,
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
}

impl Streams {
    /// No streams.
    pub(crate) fn new(limits: Limits, max_listeners: usize) -> Self {
        Self {
            limits,
            max_listeners: max_listeners.max(1),
            next: 0,
            open: BTreeMap::new(),
            listeners: BTreeSet::new(),
            exchanges: BTreeSet::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            due: Vec::new(),
        }
    }

    /// Opens the stream of a request. Gives back the requests of the server that had been waiting and are on it now.
    pub(crate) fn open_exchange(&mut self) -> (StreamId, Vec<Key>) {
        let id = self.open();
        self.exchanges.insert(id);
        (id, self.adopt(id))
    }

    /// Opens a stream that carries the answer to its request and nothing else.
    pub(crate) fn open_private(&mut self) -> StreamId {
        self.open()
    }

    /// Opens the stream of a GET, as [`open_exchange`](Self::open_exchange). If there are too many, the oldest ends.
    pub(crate) fn open_listener(&mut self) -> (StreamId, Vec<Key>) {
        if self.listeners.len() >= self.max_listeners
            && let Some(oldest) = self.listeners.pop_first()
        {
            self.end(oldest);
        }
        let id = self.open();
        self.listeners.insert(id);
        (id, self.adopt(id))
    }

    /// How many streams are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }

    /// Puts the answer on a stream, which ends with it. `false` if the stream is gone.
    pub(crate) fn answer(&mut self, id: StreamId, line: Bytes) -> bool {
        let Some(stream) = self.open.get_mut(&id) else {
            return false;
        };
        self.bytes += line.len();
        stream.queue.push_back(Item::Answer(line));
        self.end(id);
        true
    }

    /// Puts a notification on the stream of the request that it belongs to, if that stream is still open.
    pub(crate) fn notify(&mut self, id: StreamId, line: Bytes) {
        if let Some(stream) = self.open.get_mut(&id).filter(|stream| !stream.ended) {
            let item = Item::Notification { line, bound: true };
            if admit(&mut stream.queue, &mut self.bytes, &mut self.dropped, self.limits, item) {
                self.due.extend(stream.waker.take());
            }
        }
    }

    /// Puts a message that belongs to no request where it is read soonest.
    pub(crate) fn route(&mut self, item: Item) -> Routed {
        let target = self.listeners.last().or(self.exchanges.last()).copied();
        let stream = target.and_then(|id| self.open.get_mut(&id));
        let (queue, placed) = match stream {
            Some(stream) => {
                self.due.extend(stream.waker.take());
                (&mut stream.queue, Routed::Placed)
            }
            None => (&mut self.waiting, Routed::Waiting),
        };
        if admit(queue, &mut self.bytes, &mut self.dropped, self.limits, item) {
            placed
        } else {
            Routed::Refused
        }
    }

    /// Takes back a request of the server that no client has read yet; `false` if there is none.
    pub(crate) fn withdraw(&mut self, key: &Key) -> bool {
        let queues = self
            .open
            .values_mut()
            .map(|stream| &mut stream.queue)
            .chain([&mut self.waiting]);
        for queue in queues {
            if let Some(at) = queue.iter().position(|item| item.is_ask(key)) {
                self.bytes -= queue.remove(at).map_or(0, |item| item.line().len());
                return true;
            }
        }
        false
    }

    /// Closes a stream whose reader is gone. Gives back what it has not handed out.
    pub(crate) fn close(&mut self, id: StreamId) -> Vec<Item> {
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        let Some(stream) = self.open.remove(&id) else {
            return Vec::new();
        };
        self.bytes -= stream.queue.iter().map(|item| item.line().len()).sum::<usize>();
        stream.queue.into()
    }

    /// Ends all listeners cleanly and drops what waits. Exchanges end with their answers.
    pub(crate) fn end_listeners(&mut self) {
        while let Some(id) = self.listeners.pop_first() {
            self.end(id);
        }
        self.bytes -= self.waiting.drain(..).map(|item| item.line().len()).sum::<usize>();
    }

    /// The next event of a stream; `None` once it has ended.
    pub(crate) fn poll(&mut self, id: StreamId, context: &Context<'_>) -> Poll<Option<Event>> {
        let Some(stream) = self.open.get_mut(&id) else {
            return Poll::Ready(None);
        };
        if let Some(item) = stream.queue.pop_front() {
            self.bytes -= item.line().len();
            let last = matches!(item, Item::Answer(_));
            return Poll::Ready(Some(Event {
                line: item.line().clone(),
                last,
            }));
        }
        if stream.ended {
            return Poll::Ready(None);
        }
        if !stream
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(context.waker()))
        {
            stream.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// The readers that have something to read, to be woken once the lock around this is free.
    pub(crate) fn take_due(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.due)
    }

    /// How many notifications have been dropped since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn open(&mut self) -> StreamId {
        let id = StreamId(self.next);
        self.next += 1;
        self.open.insert(id, Stream::default());
        id
    }

    fn adopt(&mut self, id: StreamId) -> Vec<Key> {
        let waiting = std::mem::take(&mut self.waiting);
        let asks = waiting.iter().filter_map(|item| match item {
            Item::Ask { key, .. } => Some(key.clone()),
            Item::Notification { .. } | Item::Answer(_) => None,
        });
        let asks = asks.collect();
        if let Some(stream) = self.open.get_mut(&id) {
            stream.queue = waiting;
        }
        asks
    }

    fn end(&mut self, id: StreamId) {
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        if let Some(stream) = self.open.get_mut(&id) {
            stream.ended = true;
            self.due.extend(stream.waker.take());
        }
    }
}

/// Adds to a queue, making room by dropping the oldest notifications. `false` if there is no room; a notification that
/// finds none counts as dropped.
fn admit(queue: &mut VecDeque<Item>, bytes: &mut usize, dropped: &mut usize, limits: Limits, item: Item) -> bool {
    let size = item.line().len();
    while queue.len() >= limits.messages || (*bytes > 0 && bytes.saturating_add(size) > limits.bytes) {
        let oldest = queue.iter().position(|item| matches!(item, Item::Notification { .. }));
        let Some(removed) = oldest.and_then(|at| queue.remove(at)) else {
            if matches!(item, Item::Notification { .. }) {
                *dropped += 1;
            }
            return false;
        };
        *bytes -= removed.line().len();
        *dropped += 1;
    }
    *bytes += size;
    queue.push_back(item);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Id;

    fn streams(messages: usize, bytes: usize) -> Streams {
        Streams::new(Limits { messages, bytes }, 2)
    }

    fn told(line: &'static str) -> Item {
        Item::Notification {
            line: line.into(),
            bound: false,
        }
    }

    fn key(raw: &str) -> Key {
        Id::parse(raw).expect("an id").key().clone()
    }

    fn ask(raw: &'static str) -> Item {
        Item::Ask {
            key: key(raw),
            line: raw.into(),
        }
    }

    /// All that a stream holds, and whether it has ended.
    fn read(streams: &mut Streams, id: StreamId) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        loop {
            match streams.poll(id, &Context::from_waker(Waker::noop())) {
                Poll::Ready(Some(event)) => {
                    let text = String::from_utf8(event.line.into());
                    lines.push(text.expect("text"));
                }
                Poll::Ready(None) => return (lines, true),
                Poll::Pending => return (lines, false),
            }
        }
    }

    #[test]
    fn the_newest_listener_comes_before_the_newest_exchange() {
        let mut streams = streams(9, 99);
        let (first, _) = streams.open_exchange();
        let (second, _) = streams.open_exchange();
        assert_eq!(streams.route(told("a")), Routed::Placed);
        let (listener, _) = streams.open_listener();
        let (newer, _) = streams.open_listener();
        streams.route(told("b"));
        streams.close(newer);
        streams.route(told("c"));
        assert_eq!(read(&mut streams, first), (vec![], false));
        assert_eq!(read(&mut streams, second), (vec!["a".into()], false));
        assert_eq!(read(&mut streams, listener), (vec!["c".into()], false));
    }

    #[test]
    fn what_finds_no_stream_waits_for_the_next_and_goes_there_once() {
        let mut streams = streams(9, 99);
        assert_eq!(streams.route(told("a")), Routed::Waiting);
        assert_eq!(streams.route(ask("1")), Routed::Waiting);
        let private = streams.open_private();
        let (exchange, asks) = streams.open_exchange();
        assert_eq!(asks, [key("1")]);
        assert_eq!(streams.open_listener().1, []);
        assert_eq!(read(&mut streams, private), (vec![], false));
        assert_eq!(read(&mut streams, exchange), (vec!["a".into(), "1".into()], false));
    }

    #[test]
    fn an_answer_ends_its_stream() {
        let mut streams = streams(9, 99);
        let (id, _) = streams.open_exchange();
        streams.notify(id, "p".into());
        assert!(streams.answer(id, "r".into()));
        streams.notify(id, "late".into());
        assert_eq!(streams.route(told("x")), Routed::Waiting);
        assert_eq!(read(&mut streams, id), (vec!["p".into(), "r".into()], true));
        streams.close(id);
        assert!(!streams.answer(id, "r".into()));
    }

    #[test]
    fn a_slow_reader_loses_its_oldest_notifications_and_nothing_else() {
        let mut streams = streams(3, 99);
        let (id, _) = streams.open_exchange();
        for item in [told("a"), ask("1"), told("b"), told("c"), told("d")] {
            assert_eq!(streams.route(item), Routed::Placed);
        }
        assert!(streams.answer(id, "r".into()));
        assert_eq!(
            read(&mut streams, id),
            (vec!["1".into(), "c".into(), "d".into(), "r".into()], true)
        );
        assert_eq!(streams.take_dropped(), 2);
        assert_eq!(streams.bytes, 0);
    }

    #[test]
    fn a_queue_full_of_requests_hands_the_next_back() {
        let mut streams = streams(2, 99);
        let (id, _) = streams.open_listener();
        assert_eq!(streams.route(ask("1")), Routed::Placed);
        assert_eq!(streams.route(ask("2")), Routed::Placed);
        assert_eq!(streams.route(ask("3")), Routed::Refused);
        assert_eq!(streams.route(told("a")), Routed::Refused);
        assert_eq!(streams.take_dropped(), 1);
        assert!(streams.withdraw(&key("1")) && !streams.withdraw(&key("3")));
        assert_eq!(read(&mut streams, id), (vec!["2".into()], false));
    }

    #[test]
    fn bytes_are_limited_over_all_streams() {
        let mut streams = streams(99, 10);
        let (one, _) = streams.open_exchange();
        let (two, _) = streams.open_exchange();
        streams.notify(one, "123456".into());
        streams.notify(two, "789".into());
        streams.notify(two, "xyz".into());
        assert_eq!(streams.take_dropped(), 1);
        assert_eq!(read(&mut streams, one).0, ["123456"]);
        assert_eq!(read(&mut streams, two).0, ["xyz"]);
        streams.notify(two, "one message of any size".into());
        assert_eq!(streams.close(two).len(), 1);
        assert_eq!(streams.bytes, 0);
    }

    #[test]
    fn one_listener_too_many_ends_the_oldest() {
        let mut streams = streams(9, 99);
        let ids = [(); 3].map(|()| streams.open_listener().0);
        assert_eq!(ids.map(|id| read(&mut streams, id).1), [true, false, false]);
        streams.end_listeners();
        assert_eq!(ids.map(|id| read(&mut streams, id).1), [true, true, true]);
    }
}
