//! A conversation as one synchronous state machine: the client's side of a session, from the first
//! handshake to the end of the session, over all servers that serve it.
//!
//! Client messages, server messages, links that come and go, time and the end go in as calls; lines
//! for the servers come out of the outboxes of the links, events for clients out of
//! [`streams`](StateMachine::streams), and requests to the owner out of
//! [`take_requests`](StateMachine::take_requests). There is no io, and time is an argument, so a
//! test can replay any schedule.
//!
//! Invariants:
//! - An accepted request gets exactly one response on its own stream: a server's, or one error of
//!   the conversation. It is never sent twice unless it is known not to have been read, or to
//!   change nothing.
//! - Any other server message goes to at most one stream, never to one of a call that runs on
//!   another link.
//! - A response, a progress and a cancellation of the client go to the link that asked or runs the
//!   call, or nowhere.
//! - The end of a link leaves no entry of it in any table.
//! - Each call, each question, each task and each retained stream has exactly one timer.
//!
//! This file accepts requests, `batch` those in arrays, `client_messages` everything else.
//! `dispatch` sends calls to links, `attachment` attaches and ends links, `handshake` has the
//! record of the handshake, `readers` attaches and detaches clients, `from_server` and `questions`
//! handle the servers' messages, `timeouts` handles timers and the end.
//!
//! `modern` has what is different for clients of 2026-07-28.

mod attachment;
mod batch;
mod client_messages;
mod dispatch;
mod from_server;
mod handshake;
#[cfg(feature = "http")]
mod http_links;
mod modern;
mod questions;
mod readers;
mod snapshot;
#[cfg(test)]
mod tests;
mod timeouts;

use std::{
    hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState},
    mem,
};

use bytes::Bytes;
use tokio::time::Instant;

use self::handshake::Handshake;
use self::modern::Modern;
pub use self::snapshot::Snapshot;
pub(crate) use self::{batch::split_batch, handshake::unsupported_version};
#[cfg(feature = "http")]
pub(crate) use self::{
    handshake::result_version,
    http_links::{OutgoingKind, OutgoingMessage},
};
use crate::{
    config::Config,
    dropped::DropReason,
    error::{Refusal, RejectReason},
    jsonrpc::{self, Envelope, Id},
    streams::{EventId, Reader, RequestIds, StreamId, Streams},
    tables::{
        calls::{Call, Calls, OnSuccess},
        links::{LinkNumber, Links},
        lists::{LISTS, Lists},
        questions::Questions,
        settings::ClientSetting,
        tasks::Tasks,
        timers::{Timer, Timers},
    },
    versions,
};

/// The state machine of one conversation.
#[derive(Debug)]
pub(crate) struct StateMachine {
    config: Config,
    pub(crate) links: Links,
    calls: Calls,
    questions: Questions,
    tasks: Tasks,
    lists: Lists,
    pub(crate) handshake: Handshake,
    /// For clients of 2026-07-28.
    modern: Option<Box<Modern>>,
    pub(crate) timers: Timers,
    /// Set for good once the session has ended.
    closed: Option<Refusal>,
    requests: OwnerRequests,
    /// Something has ended, or a handshake was answered, since the last
    /// [`take_progress`](Self::take_progress).
    progress: bool,
    /// The client was blank at the last [`take_requests`](Self::take_requests).
    was_blank: bool,
    /// The value at the last [`take_expectation`](Self::take_expectation).
    #[cfg(feature = "http")]
    expected_messages: bool,
    /// The streams toward clients, for their readers to poll.
    pub(crate) streams: Streams,
}

/// What the machine asks of its owner.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnerRequests {
    /// A call waits for a link newer than this.
    pub(crate) want: Option<LinkNumber>,
    /// The snapshot has changed.
    pub(crate) changed: bool,
    /// Something that the client had begun has ended.
    pub(crate) touch: bool,
}

impl StateMachine {
    /// The machine of a session with this short name, for requests of this principal. The snapshot
    /// is that of an earlier instance.
    pub(crate) fn new(config: Config, tag: &str, principal: &str, snapshot: Option<&Snapshot>) -> Self {
        // The epoch distinguishes this instance from earlier and later ones; it is not a secret.
        let epoch = RandomState::new().hash_one("epoch");
        Self {
            links: Links::default(),
            calls: Calls::default(),
            questions: Questions::new(tag, epoch),
            tasks: Tasks::default(),
            lists: snapshot.map(Snapshot::lists).unwrap_or_default(),
            handshake: snapshot.map(Handshake::restored).unwrap_or_default(),
            modern: snapshot
                .filter(|snapshot| snapshot.is_modern())
                .map(|_| Box::new(Modern::new(tag, principal, epoch))),
            timers: Timers::default(),
            closed: None,
            requests: OwnerRequests::default(),
            progress: false,
            was_blank: true,
            #[cfg(feature = "http")]
            expected_messages: false,
            streams: Streams::new(epoch, config.clone()),
            config,
        }
    }

    /// Accepts a request. Its response, and messages before it, will be on the stream. Requests
    /// without a session id (not `keyed`) may have equal ids.
    ///
    /// # Errors
    ///
    /// [`RejectReason::IdInFlight`], [`RejectReason::TooManyRequests`],
    /// [`RejectReason::InitializeTooLarge`] and [`RejectReason::Initializing`].
    pub(crate) fn request(
        &mut self,
        now: Instant,
        mut message: Envelope,
        id: Id,
        method: &str,
        keyed: bool,
    ) -> Result<Reader, RejectReason> {
        let content = content_hash(&message, method);
        if keyed
            && let Some(number) = self.calls.by_key(id.key())
            && let Some(reader) = self.repeated(now, number, &id, content)?
        {
            return Ok(reader);
        }
        self.check_room(1)?;
        let requests = RequestIds::new([&id]);
        if method != "initialize" {
            self.prove_initialized();
            let reader = self.streams.open_exchange(requests, 1);
            let mut call = Call::new(id, method, content, reader.stream);
            call.keyed = keyed;
            self.begin(now, &message, call);
            return Ok(reader);
        }
        // No other message may go to the stream: there is no session before the handshake.
        if let Some(result) = self.handshake.result() {
            let response = jsonrpc::result(id.raw(), result);
            let reader = self.streams.open_response_only(requests, 1);
            self.streams.respond(reader.stream, response);
            return Ok(reader);
        }
        if self.handshake.is_in_progress() {
            return Err(RejectReason::Initializing);
        }
        if handshake::is_too_large(&message) {
            return Err(RejectReason::InitializeTooLarge);
        }
        handshake::lower_version(&mut message);
        let reader = self.streams.open_response_only(requests, 1);
        self.begin(now, &message, Call::new(id, method, content, reader.stream));
        Ok(reader)
    }

    /// The requests to the owner since the last call.
    pub(crate) fn take_requests(&mut self) -> OwnerRequests {
        let blank = self.is_blank();
        if blank && !mem::replace(&mut self.was_blank, blank) {
            self.requests.changed = true;
        }
        self.was_blank = blank;
        mem::take(&mut self.requests)
    }

    /// True if [`take_requests`](Self::take_requests) has something to return.
    pub(crate) fn has_requests(&self) -> bool {
        self.requests != OwnerRequests::default() || (self.is_blank() && !self.was_blank)
    }

    /// Tells the memory budget what the conversation uses.
    pub(crate) fn account_memory(&mut self) {
        let modern = self.modern.as_ref().map_or(0, |modern| modern.kept_bytes());
        self.streams
            .account(self.calls.kept_bytes() + self.links.queued_bytes() + modern);
    }

    /// The new value of [`expects_messages`](Self::expects_messages), if it has changed since the
    /// last call.
    #[cfg(feature = "http")]
    pub(crate) fn take_expectation(&mut self) -> Option<bool> {
        let expects = self.expects_messages();
        (mem::replace(&mut self.expected_messages, expects) != expects).then_some(expects)
    }

    /// True if something that may be waited for has happened since the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        mem::take(&mut self.progress)
    }

    /// Begins the event stream of a reader. True if its client understands a priming event, which
    /// is new in 2025-11-25: earlier clients fail on an event without data.
    pub(crate) fn begin_events(&mut self, reader: Reader) -> Option<(EventId, bool)> {
        let prime = self
            .handshake
            .version()
            .is_none_or(|version| version >= versions::LATEST);
        let prime = prime && self.streams.is_resumable(reader.stream);
        Some((self.streams.begin_events(reader, prime)?, prime))
    }

    /// The next lines for the server of a link.
    pub(crate) fn take_output(&mut self, link: LinkNumber) -> Option<Bytes> {
        self.links.get_mut(link)?.outbox.take()
    }

    /// True if a call of this stream waits for a server.
    pub(crate) fn is_waiting(&self, stream: StreamId) -> bool {
        self.calls.of_stream(stream).any(|call| call.link().is_none())
    }

    /// True if nothing is kept here that an instance made from the snapshot would not have.
    pub(crate) fn is_blank(&self) -> bool {
        self.calls.is_empty()
            && self.questions.is_empty()
            && self.tasks.is_empty()
            && self.links.is_empty()
            && self.streams.is_empty()
            && self.modern.as_ref().is_none_or(|modern| modern.is_blank())
    }

    /// The state of a conversation with clients of 2026-07-28.
    pub(crate) fn modern(&mut self) -> Option<&mut Modern> {
        self.modern.as_deref_mut()
    }

    /// The state that a later instance needs; `None` before the handshake has a result.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.handshake.snapshot(&self.lists)
    }

    /// Handles a request with the id of one that is in flight. The response goes to the client that
    /// has asked last: if the earlier exchange has lost its client, an equal request takes it over,
    /// and another one replaces it. Returns the reader of a request that was taken over.
    fn repeated(&mut self, now: Instant, number: u64, id: &Id, content: u64) -> Result<Option<Reader>, RejectReason> {
        let Some(call) = self.calls.get(number) else {
            return Ok(None);
        };
        let (before, link, cancelled) = (call.stream, call.link(), call.cancelled);
        if self.streams.is_attached(before) {
            return Err(RejectReason::IdInFlight);
        }
        // The request takes the room of the one before. A rejected request replaces nothing.
        self.check_room(0)?;
        let alone = self.calls.of_stream(before).count() == 1;
        if call.content != content || cancelled || !alone {
            self.replace(now, number);
            return Ok(None);
        }
        let requests = RequestIds::new([id]);
        let reader = if &*call.method == "initialize" {
            self.streams.open_response_only(requests, 1)
        } else {
            self.streams.open_exchange(requests, 1)
        };
        if let Some(call) = self.calls.get_mut(number) {
            call.stream = reader.stream;
            // The client may have spelled it in another way.
            call.id = id.clone();
        }
        self.questions.move_stream(before, reader.stream);
        self.discard(before);
        if let Some(link) = link {
            self.assign(now, reader.stream, link);
        }
        Ok(Some(reader))
    }

    /// Registers the call of a message and sends it, if there is a server.
    fn begin(&mut self, now: Instant, message: &Envelope, mut call: Call) {
        let number = self.calls.next_number();
        let method = call.method.clone();
        call.set_line(message.with_id_and_token(&number.to_string()));
        call.token = call.token.or_else(|| message.progress_token());
        call.repeatable = self.lists.is_repeatable(&method, message);
        call.on_success = on_success(&method, message);
        if let Some(modern) = call.modern.as_mut() {
            modern.number = number;
        }
        if &*method == "initialize" && !self.handshake.has_record() {
            self.handshake.begin(number, message);
        }
        self.calls.insert(number, call);
        self.timers.set(Timer::Call(number), now + self.config.request_timeout);
        self.dispatch(now, number);
    }

    /// Checks that so many more requests fit.
    fn check_room(&self, requests: usize) -> Result<(), RejectReason> {
        let max = self.config.max_in_flight;
        let full = self.calls.len().saturating_add(requests) > max
            || self.streams.count_attached() >= max.saturating_add(self.config.max_listeners)
            || (requests > 0
                && (self.calls.kept_bytes() > self.config.outgoing.bytes || self.streams.exceeds_memory(0)));
        if full {
            Err(RejectReason::TooManyRequests)
        } else {
            Ok(())
        }
    }

    fn count(&self, reason: DropReason) {
        self.config.drop_counts.count(reason);
    }

    /// Notes that something has ended that kept a server busy.
    fn note_end(&mut self) {
        self.requests.touch = true;
        self.progress = true;
    }

    /// Notes that the snapshot has changed.
    fn note_change(&mut self) {
        self.handshake.grow_revision();
        self.requests.changed = true;
    }
}

/// A hash of what a request asks for.
fn content_hash(message: &Envelope, method: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (method, message.params()).hash(&mut hasher);
    hasher.finish()
}

/// What the success of a request changes here.
fn on_success(method: &str, message: &Envelope) -> OnSuccess {
    if let Some(setting) = ClientSetting::of(method, message) {
        return OnSuccess::Setting(setting);
    }
    if LISTS.iter().any(|list| list.method == method) {
        let cursor = message.param("cursor").filter(|cursor| *cursor != "null");
        return OnSuccess::Page {
            cursor: cursor.map(Box::from),
        };
    }
    match (method, from_server::task_id(message.params())) {
        ("tasks/result" | "tasks/cancel", Some(id)) => OnSuccess::FinishesTask(id.into()),
        _ if message.param("task").is_some() => OnSuccess::CreatesTask,
        _ => OnSuccess::Nothing,
    }
}
