//! The streams toward clients: routes each message to one stream, and replays streams on resume.
//!
//! A stream belongs to one POST (an exchange) or one GET (a listener), and outlives the links that
//! write to it. Every message goes to exactly one stream (MCP 2025-11-25, "Multiple Connections").
//! A message without a request goes to the newest listener, else to the newest exchange without a
//! response that runs on the link of the message, else it waits for the next such stream. The
//! unread messages of a reader that detaches are routed again, except those that belong to the
//! request of the stream.
//!
//! A stream has one reader at a time. A primed stream (its client has an event id) outlives its
//! reader: delivered messages go to the replay buffer, and messages of its request still gather. A
//! later reader continues at the position that it names, and replaces a reader that may still seem
//! attached.
//!
//! Limits: pending messages of one stream; pending bytes of all streams; messages and bytes of all
//! replay buffers. At a limit, the oldest pending notifications are dropped and questions are
//! rejected; [`Streams::has_room`] tells beforehand if a response fits. The replay buffer evicts
//! its oldest messages, and with a response its whole stream.
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
use crate::{config::Config, error::Refusal, jsonrpc::Id, memory::Share, tables::links::LinkNumber};

/// Names a stream of one conversation. Newer streams have greater ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// One reader of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) stream: StreamId,
    /// Grows with each reader of the stream.
    generation: u64,
}

/// All streams of a conversation.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Distinguishes the event ids of this instance from those of others.
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
    /// The share of the memory budget, as of the last [`Streams::account`].
    share: Share,
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
    /// The link that runs the request of an exchange.
    link: Option<LinkNumber>,
    /// The error of the owner, instead of any message.
    refusal: Option<Refusal>,
    /// The answer to its exchange has begun as an event stream.
    streaming: bool,
    /// No more messages are added; the stream ends once no message is pending.
    ended: bool,
    /// The client has an event id of the stream and can resume it.
    primed: bool,
    /// Its events have ids.
    resumable: bool,
    /// A response was evicted from the replay buffer.
    incomplete: bool,
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
            share: config.memory.share(),
            config,
            next: 0,
            all: BTreeMap::new(),
            attached: 0,
            listeners: BTreeSet::new(),
            exchanges: BTreeSet::new(),
            waiting: EventQueue::default(),
            bytes: 0,
            unflushed: Unflushed::default(),
            replay_buffer: ReplayBuffer::default(),
            dropped: 0,
            wakers: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Tells the memory budget what is used here and, in `other_bytes`, elsewhere in the
    /// conversation.
    pub(crate) fn account(&mut self, other_bytes: usize) {
        self.share.set(self.used_bytes() + other_bytes);
    }

    /// True if the memory budget has no room for so many more bytes.
    pub(crate) fn exceeds_memory(&self, more: usize) -> bool {
        self.share.exceeds(self.used_bytes().saturating_add(more))
    }

    /// The bytes of all messages, also of those on their way to clients.
    fn used_bytes(&self) -> usize {
        self.bytes + self.unflushed.bytes() + self.replay_buffer.bytes()
    }

    /// Opens a stream for `pending` requests, which run on no link yet.
    pub(crate) fn open_exchange(&mut self, requests: RequestIds, pending: usize) -> Reader {
        let reader = self.open(requests, StreamKind::Exchange { pending });
        self.exchanges.insert(reader.stream);
        reader
    }

    /// Opens a stream that carries the responses to its requests and nothing else.
    pub(crate) fn open_response_only(&mut self, requests: RequestIds, pending: usize) -> Reader {
        self.open(requests, StreamKind::ResponseOnly { pending })
    }

    /// Opens a stream whose client cannot resume it, for the response to one request and the
    /// notifications before it.
    pub(crate) fn open_private(&mut self, request: &Id) -> Reader {
        let reader = self.open(RequestIds::new([request]), StreamKind::ResponseOnly { pending: 1 });
        self.all
            .entry(reader.stream)
            .and_modify(|stream| stream.resumable = false);
        reader
    }

    /// Opens the stream of a GET. At the limit the oldest listener ends. Returns the questions that
    /// had waited for a stream and are on this one now.
    pub(crate) fn open_listener(&mut self) -> (Reader, Vec<u64>) {
        self.end_oldest_listener_at_limit();
        let reader = self.open(RequestIds::default(), StreamKind::Listener);
        self.listeners.insert(reader.stream);
        (reader, self.attach_waiting(reader.stream))
    }

    /// Notes the link that runs the request of a stream. Returns the questions that had waited for
    /// such a stream and are on this one now.
    pub(crate) fn assign(&mut self, id: StreamId, link: LinkNumber) -> Vec<u64> {
        let Some(stream) = self.all.get_mut(&id) else {
            return Vec::new();
        };
        stream.link = Some(link);
        if self.exchanges.contains(&id) {
            self.attach_waiting(id)
        } else {
            Vec::new()
        }
    }

    /// Ends a stream with the error of the owner, if its exchange can still be answered with it.
    pub(crate) fn refuse(&mut self, id: StreamId, why: &Refusal) -> bool {
        let Some(stream) = self.all.get_mut(&id) else {
            return false;
        };
        let single = matches!(
            stream.kind,
            StreamKind::Exchange { pending: 1 } | StreamKind::ResponseOnly { pending: 1 }
        );
        if stream.streaming || stream.ended || !single || !stream.queue.is_empty() {
            return false;
        }
        stream.refusal = Some(why.clone());
        self.end(id);
        true
    }

    /// The number of GET streams with a reader.
    #[cfg(feature = "http")]
    pub(crate) fn count_listeners(&self) -> usize {
        self.listeners.len()
    }

    /// The number of streams with a reader.
    pub(crate) fn count_attached(&self) -> usize {
        self.attached
    }

    pub(crate) fn is_resumable(&self, id: StreamId) -> bool {
        self.all.get(&id).is_some_and(|stream| stream.resumable)
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
        if let Some(refusal) = stream.refusal.take() {
            return Poll::Ready(ResponseMode::Unserved(refusal));
        }
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
        stream.primed = stream.resumable && !stream.incomplete;
        let Some(line) = self.deliver_next(reader.stream) else {
            return Poll::Ready(None);
        };
        let event = self.stream_of(reader).map(|stream| StreamEvent {
            id: stream.resumable.then(|| stream.event_id(epoch, reader.stream)),
            line,
            last: stream.is_read(),
        });
        self.trim_replay_buffer();
        Poll::Ready(event)
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
                link: None,
                refusal: None,
                streaming: false,
                ended: false,
                primed: false,
                resumable: true,
                incomplete: false,
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
            // A listener may be opened again after its end.
            is_final: self.kind != StreamKind::Listener && self.is_read(),
            requests: self.requests.clone(),
        }
    }

    /// True if no more events come.
    fn is_read(&self) -> bool {
        self.ended && self.queue.count_pending() == 0
    }

    fn register_waker(&mut self, context: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }
}
