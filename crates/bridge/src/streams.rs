//! The streams toward clients: routes each message to one stream, and replays streams on resume.
//!
//! A stream belongs to one POST (an exchange) or one GET (a listener). Every message goes to
//! exactly one stream (MCP 2025-11-25, "Multiple Connections"). A message without a request goes
//! to the newest listener, else to the newest exchange without a response, else it waits for the
//! next stream of either kind. The unread messages of a reader that detaches are routed
//! again, except those that belong to the request of the stream.
//!
//! A stream has one reader at a time. A primed stream (its client has an event id) outlives its
//! reader: delivered messages go to the replay buffer, and messages of its request still gather. A
//! later reader continues at the position that it names, and replaces a reader that may still seem
//! attached.
//!
//! Limits: pending messages of one stream; pending bytes of all streams; messages and bytes of all
//! replay buffers. At a limit, the oldest pending notifications are dropped and server requests
//! are rejected; [`Streams::has_room`] tells beforehand if a response fits. The replay buffer
//! evicts its oldest messages, and with a response its whole stream.
//!
//! This module does no io and knows no time: polling takes a context, and the caller wakes the
//! collected wakers.

mod event_id;
mod event_queue;
mod message;
mod replay_buffer;
mod resume;
mod routing;
#[cfg(test)]
mod tests;
mod unflushed;

use std::{
    collections::{BTreeMap, BTreeSet},
    task::{Context, Poll, Waker},
};

pub(crate) use self::{
    event_id::{EventId, RequestIds},
    message::{ResponseMode, Routed, StreamEvent, StreamMessage, StreamMessageKind},
    unflushed::Unflushed,
};
use self::{event_queue::EventQueue, replay_buffer::ReplayBuffer};
use crate::{config::Config, jsonrpc::RequestKey};

/// Names a stream of one bridge. Newer streams have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// One reader of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) stream: StreamId,
    /// Grows with each reader of the stream.
    generation: u64,
}

/// All streams of a bridge.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// Distinguishes the event ids of this bridge from those of other bridges.
    epoch: u64,
    config: Config,
    next: u64,
    all: BTreeMap<StreamId, Stream>,
    /// The number of streams with a reader.
    attached: usize,
    /// Streams of a GET that have a reader and have not ended.
    listeners: BTreeSet<StreamId>,
    /// Streams of a POST that have a reader, wait for a response and may carry other messages.
    exchanges: BTreeSet<StreamId>,
    /// Messages that wait for the next stream.
    waiting: EventQueue,
    /// The bytes of all messages in `all` and `waiting` outside the replay buffer.
    bytes: usize,
    unflushed: Unflushed,
    replay_buffer: ReplayBuffer,
    /// The number of notifications dropped since the last [`Streams::take_dropped`].
    dropped: usize,
    wakers: Vec<Waker>,
    /// The primed streams removed since the last [`Streams::take_removed`].
    removed: Vec<StreamId>,
}

#[derive(Debug)]
struct Stream {
    queue: EventQueue,
    requests: RequestIds,
    kind: StreamKind,
    /// No more messages are added; the stream ends once no message is pending.
    ended: bool,
    /// The client has an event id of the stream and can resume it.
    primed: bool,
    /// The generation of the newest reader.
    generation: u64,
    attached: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamKind {
    Listener,
    /// With the number of responses still to come.
    Exchange {
        pending: usize,
    },
    /// An exchange that carries no other messages than its responses.
    ResponseOnly {
        pending: usize,
    },
}

impl Streams {
    pub(crate) fn new(epoch: u64, config: Config) -> Self {
        Self {
            epoch,
            config,
            ..Self::default()
        }
    }

    /// Opens a stream for `pending` requests. Returns the server requests that had waited for a
    /// stream and are on this one now.
    pub(crate) fn open_exchange(&mut self, requests: RequestIds, pending: usize) -> (Reader, Vec<RequestKey>) {
        let reader = self.open(requests, StreamKind::Exchange { pending });
        self.exchanges.insert(reader.stream);
        (reader, self.attach_waiting(reader.stream))
    }

    /// Opens a stream that carries the responses to its requests and nothing else.
    pub(crate) fn open_response_only(&mut self, requests: RequestIds, pending: usize) -> Reader {
        self.open(requests, StreamKind::ResponseOnly { pending })
    }

    /// Opens the stream of a GET, like [`open_exchange`](Self::open_exchange). At the limit the
    /// oldest listener ends.
    pub(crate) fn open_listener(&mut self) -> (Reader, Vec<RequestKey>) {
        self.end_oldest_listener_at_limit();
        let reader = self.open(RequestIds::default(), StreamKind::Listener);
        self.listeners.insert(reader.stream);
        (reader, self.attach_waiting(reader.stream))
    }

    /// The number of streams with a reader.
    pub(crate) fn count_attached(&self) -> usize {
        self.attached
    }

    pub(crate) fn is_attached(&self, id: StreamId) -> bool {
        self.all.get(&id).is_some_and(|stream| stream.attached)
    }

    /// The count of bytes that readers have taken and not yet written.
    pub(crate) fn unflushed(&self) -> &Unflushed {
        &self.unflushed
    }

    /// Decides how to answer an exchange: JSON once all responses are there, SSE as soon as another
    /// message comes first.
    pub(crate) fn poll_response_mode(&mut self, reader: Reader, context: &Context<'_>) -> Poll<ResponseMode> {
        let Some(stream) = self.stream_of(reader) else {
            return Poll::Ready(ResponseMode::Json(Vec::new()));
        };
        if stream.queue.pending().any(|kind| *kind != StreamMessageKind::Response) {
            return Poll::Ready(ResponseMode::Sse);
        }
        if !stream.ended {
            stream.register_waker(context);
            return Poll::Pending;
        }
        let responses = stream.queue.take();
        responses.iter().for_each(|queued| self.release(queued));
        let lines = responses.into_iter().map(|queued| queued.message.line);
        Poll::Ready(ResponseMode::Json(lines.collect()))
    }

    /// Primes a stream: its client gets an event id and can resume from now on. Returns the current
    /// position, or `None` if another reader has replaced this one.
    pub(crate) fn prime(&mut self, reader: Reader) -> Option<EventId> {
        let epoch = self.epoch;
        let stream = self.stream_of(reader)?;
        stream.primed = true;
        Some(stream.event_id(epoch, reader.stream))
    }

    /// The next event of a stream; `None` once it has ended, or if another reader has replaced this
    /// one.
    pub(crate) fn poll_event(&mut self, reader: Reader, context: &Context<'_>) -> Poll<Option<StreamEvent>> {
        let epoch = self.epoch;
        let Some(stream) = self.stream_of(reader) else {
            return Poll::Ready(None);
        };
        if stream.queue.count_pending() == 0 {
            if stream.ended {
                return Poll::Ready(None);
            }
            stream.register_waker(context);
            return Poll::Pending;
        }
        let Some(line) = self.deliver_next(reader.stream) else {
            return Poll::Ready(None);
        };
        let event = self.stream_of(reader).map(|stream| StreamEvent {
            id: stream.event_id(epoch, reader.stream),
            line,
            last: stream.ended && stream.queue.count_pending() == 0,
        });
        self.trim_replay_buffer();
        Poll::Ready(event)
    }

    /// The wakers of readers with something to read, to be woken outside the lock.
    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// The number of notifications dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> usize {
        std::mem::take(&mut self.dropped)
    }

    fn open(&mut self, requests: RequestIds, kind: StreamKind) -> Reader {
        let stream = StreamId(self.next);
        self.next += 1;
        self.attached += 1;
        self.all.insert(
            stream,
            Stream {
                queue: EventQueue::default(),
                requests,
                kind,
                ended: false,
                primed: false,
                generation: 0,
                attached: true,
                waker: None,
            },
        );
        Reader { stream, generation: 0 }
    }

    fn end_oldest_listener_at_limit(&mut self) {
        if self.listeners.len() >= self.config.max_listeners.max(1)
            && let Some(oldest) = self.listeners.pop_first()
        {
            self.end(oldest);
        }
    }

    /// The stream of a reader that has not been replaced.
    fn stream_of(&mut self, reader: Reader) -> Option<&mut Stream> {
        self.all
            .get_mut(&reader.stream)
            .filter(|stream| stream.attached && stream.generation == reader.generation)
    }

    fn end(&mut self, id: StreamId) {
        self.listeners.remove(&id);
        self.exchanges.remove(&id);
        if let Some(stream) = self.all.get_mut(&id) {
            stream.ended = true;
            self.wakers.extend(stream.waker.take());
        }
    }
}

impl Stream {
    fn event_id(&self, epoch: u64, id: StreamId) -> EventId {
        EventId {
            epoch,
            stream: id,
            position: self.queue.position(),
            requests: self.requests.clone(),
        }
    }

    fn register_waker(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}
