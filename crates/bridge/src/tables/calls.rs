//! The client's requests in flight.
//!
//! A call is *waiting* until there is a server, then *queued* on its link, then *written*. Toward
//! the servers it has a number that the conversation assigns and never reuses, which is also its
//! progress token there. So calls of two exchanges stay apart whatever their ids, and so do calls
//! on two links. A call leaves the table with its response, by its cancellation or timeout, or with
//! its link. It stays when its client disconnects, because a disconnect does not cancel (MCP
//! 2025-11-25, "Sending Messages to the Server", point 6).
//!
//! Invariants: `by_key` names existing calls that are keyed, `waiting` exactly those without a
//! link, and `kept_bytes` counts the lines and the kept answers of all calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    links::LinkNumber,
    modern_calls::{Asked, ModernCall, Stage},
    settings::ClientSetting,
};
use crate::{
    jsonrpc::{Id, RequestKey},
    streams::StreamId,
};

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: Id,
    pub(crate) method: Box<str>,
    /// A hash of method and parameters.
    pub(crate) content: u64,
    /// The progress token as the client wrote it.
    pub(crate) token: Option<Id>,
    /// The stream for the response, which may be gone by then.
    pub(crate) stream: StreamId,
    pub(crate) place: Place,
    /// The message for the server, while it may have to be sent; else empty.
    line: Bytes,
    /// It changes nothing at the server, so that it may be sent twice.
    pub(crate) repeatable: bool,
    /// Its link has taken it, and has sent nothing of it yet.
    pub(crate) unsent: bool,
    /// The number of times that it was sent again.
    pub(crate) resends: u8,
    pub(crate) cancelled: bool,
    pub(crate) on_success: OnSuccess,
    /// No other call in flight may have its id. False for requests without a session id, several
    /// clients of which may use the same.
    pub(crate) keyed: bool,
    /// For a client of 2026-07-28.
    pub(crate) modern: Option<Box<ModernCall>>,
}

/// What the success of a call changes here.
#[derive(Debug, Default)]
pub(crate) enum OnSuccess {
    #[default]
    Nothing,
    Setting(ClientSetting),
    /// The client has fetched the page of a list, whose cursor was this (JSON text).
    Page {
        cursor: Option<Box<str>>,
    },
    /// The call runs on as a task.
    CreatesTask,
    /// The client has the result of this task, or has ended it.
    FinishesTask(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Waiting,
    /// In the outbox of a link, or written from there.
    Link {
        link: LinkNumber,
        /// The number of its line in the outbox.
        line: u64,
    },
}

/// The calls, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: HashMap<u64, Call>,
    by_key: HashMap<RequestKey, u64>,
    waiting: BTreeSet<u64>,
    kept_bytes: usize,
    last: u64,
}

impl Call {
    /// A call that waits for a server.
    pub(crate) fn new(id: Id, method: &str, content: u64, stream: StreamId) -> Self {
        Self {
            id,
            method: method.into(),
            content,
            token: None,
            stream,
            place: Place::Waiting,
            line: Bytes::new(),
            repeatable: false,
            unsent: false,
            resends: 0,
            cancelled: false,
            on_success: OnSuccess::Nothing,
            keyed: true,
            modern: None,
        }
    }

    /// Sets the message for the server. Only before the call is in the table.
    pub(crate) fn set_line(&mut self, line: Bytes) {
        self.line = line;
    }

    /// The bytes that the call keeps for its server.
    fn kept_bytes(&self) -> usize {
        self.line.len() + self.modern.as_ref().map_or(0, |modern| modern.answer_bytes())
    }

    /// The link that runs the call.
    pub(crate) fn link(&self) -> Option<LinkNumber> {
        match self.place {
            Place::Waiting => None,
            Place::Link { link, .. } => Some(link),
        }
    }
}

impl Calls {
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The number of the next call, or of a request of the conversation itself.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Adds a waiting call under a number from [`next_number`](Self::next_number).
    pub(crate) fn insert(&mut self, number: u64, call: Call) {
        if call.keyed {
            self.by_key.insert(call.id.key().clone(), number);
        }
        self.waiting.insert(number);
        self.kept_bytes += call.kept_bytes();
        self.all.insert(number, call);
    }

    pub(crate) fn get(&self, number: u64) -> Option<&Call> {
        self.all.get(&number)
    }

    /// The call with a number. Its place changes by [`place`](Self::place) and
    /// [`requeue`](Self::requeue) only.
    pub(crate) fn get_mut(&mut self, number: u64) -> Option<&mut Call> {
        self.all.get_mut(&number)
    }

    /// What a call of a client of 2026-07-28 has beside the rest.
    pub(crate) fn modern_mut(&mut self, number: u64) -> Option<&mut ModernCall> {
        self.all.get_mut(&number)?.modern.as_deref_mut()
    }

    /// Takes the open questions about a call.
    pub(crate) fn take_asked(&mut self, number: u64) -> Vec<Asked> {
        let modern = self.modern_mut(number);
        modern
            .map(|modern| std::mem::take(&mut modern.asked))
            .unwrap_or_default()
    }

    /// A call that runs on a link.
    pub(crate) fn on_link(&mut self, link: LinkNumber, number: u64) -> Option<&mut Call> {
        self.all.get_mut(&number).filter(|call| call.link() == Some(link))
    }

    pub(crate) fn take(&mut self, number: u64) -> Option<Call> {
        let call = self.all.remove(&number)?;
        if self.by_key.get(call.id.key()) == Some(&number) {
            self.by_key.remove(call.id.key());
        }
        self.waiting.remove(&number);
        self.kept_bytes -= call.kept_bytes();
        Some(call)
    }

    /// The newest call with this client id.
    pub(crate) fn by_key(&self, key: &RequestKey) -> Option<u64> {
        self.by_key.get(key).copied()
    }

    /// The only call with this client id, among those with and without a session id.
    pub(crate) fn only_with_id(&self, key: &RequestKey) -> Option<u64> {
        let mut with_id = self.all.iter().filter(|(_, call)| call.id.key() == key);
        let (number, _) = with_id.next()?;
        with_id.next().is_none().then_some(*number)
    }

    /// The waiting calls, oldest first.
    pub(crate) fn waiting(&self) -> Vec<u64> {
        self.waiting.iter().copied().collect()
    }

    pub(crate) fn line(&self, number: u64) -> Option<Bytes> {
        Some(self.all.get(&number)?.line.clone())
    }

    /// Notes that a call is on a link, in the outbox line `line`.
    pub(crate) fn place(&mut self, number: u64, link: LinkNumber, line: u64) {
        if let Some(call) = self.all.get_mut(&number) {
            call.place = Place::Link { link, line };
            call.unsent = false;
            self.waiting.remove(&number);
        }
    }

    /// Notes that a call waits for another link.
    pub(crate) fn requeue(&mut self, number: u64) {
        if let Some(call) = self.all.get_mut(&number) {
            call.place = Place::Waiting;
            self.waiting.insert(number);
        }
    }

    /// Drops the line of a call that must not be sent again.
    pub(crate) fn forget_line(&mut self, number: u64) {
        if let Some(call) = self.all.get_mut(&number) {
            self.kept_bytes -= call.line.len();
            call.line = Bytes::new();
        }
    }

    /// Notes that a call has not been sent after all, and keeps its line again.
    #[cfg(feature = "http")]
    pub(crate) fn keep_line(&mut self, number: u64, line: Bytes) {
        self.forget_line(number);
        if let Some(call) = self.all.get_mut(&number) {
            self.kept_bytes += line.len();
            call.line = line;
            call.unsent = true;
        }
    }

    /// Keeps answers of the client of a modern call for questions that its server may ask later.
    pub(crate) fn keep_answers(&mut self, number: u64, answers: BTreeMap<Box<str>, Box<str>>) {
        let modern = self.all.get_mut(&number).and_then(|call| call.modern.as_mut());
        if let Some(modern) = modern {
            self.kept_bytes -= modern.answer_bytes();
            modern.keep_answers(answers);
            self.kept_bytes += modern.answer_bytes();
        }
    }

    /// Takes the kept answer for a key.
    pub(crate) fn take_answer(&mut self, number: u64, key: &str) -> Option<Box<str>> {
        let modern = self.all.get_mut(&number)?.modern.as_mut()?;
        let answer = modern.answers.remove(key)?;
        self.kept_bytes -= key.len() + answer.len();
        Some(answer)
    }

    /// The bytes of all lines and answers that are kept.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// The calls on a link, oldest first.
    pub(crate) fn all_on(&self, link: LinkNumber) -> Vec<u64> {
        let on_link = self.all.iter().filter(|(_, call)| call.link() == Some(link));
        let mut numbers: Vec<_> = on_link.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The calls on a link, in no order.
    pub(crate) fn on(&self, link: LinkNumber) -> impl Iterator<Item = &Call> {
        self.all.values().filter(move |call| call.link() == Some(link))
    }

    /// The calls whose client has gone to answer questions, with the times since which.
    pub(crate) fn parked(&self) -> Vec<(Instant, u64)> {
        let modern = self.all.values().filter_map(|call| call.modern.as_deref());
        let parked = modern.filter_map(|call| match call.stage {
            Stage::Parked(since) => Some((since, call.number)),
            Stage::Running | Stage::Gathering(_) => None,
        });
        parked.collect()
    }

    pub(crate) fn count_on(&self, link: LinkNumber) -> usize {
        self.all.values().filter(|call| call.link() == Some(link)).count()
    }

    /// The numbers of all calls, oldest first.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<_> = self.all.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// The calls with their response on this stream.
    pub(crate) fn of_stream(&self, stream: StreamId) -> impl Iterator<Item = &Call> {
        self.all.values().filter(move |call| call.stream == stream)
    }
}
