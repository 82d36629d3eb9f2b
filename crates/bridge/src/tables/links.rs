//! The links of a conversation: one for each server, at most one of them current.
//!
//! A link is *starting* until it is attached, then *current*, then *retired*: it finishes what runs
//! on it. It leaves the table when it ends.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::Notify;

use crate::{config::QueueLimits, link::outbox::Outbox, modern::LogLevel};

/// Names a link of a conversation; newer links have greater numbers. The owner of the conversation
/// assigns them, from 1.
pub(crate) type LinkNumber = u64;

#[derive(Debug)]
pub(crate) struct LinkEntry {
    /// The lines toward the server, for the link to write.
    pub(crate) outbox: Outbox,
    /// Lines wait in the outbox. For a single waiter, who may find none.
    pub(crate) output: Arc<Notify>,
    /// The number of the last line that the link was told of.
    signaled: u64,
    pub(crate) stage: Stage,
    /// The server accepts no more messages; its own may still arrive.
    pub(crate) write_closed: bool,
    /// The replay of the handshake.
    pub(crate) replay: Replay,
    /// The server has received `notifications/initialized`.
    pub(crate) initialized: bool,
    /// The log level that calls of clients of 2026-07-28 have set last.
    pub(crate) log_level: Option<LogLevel>,
    /// The server has answered a call. Readable after the end of the link, too.
    pub(crate) answered: Arc<AtomicBool>,
    /// The requests of the conversation itself that the server has not answered.
    pub(crate) own: HashMap<u64, OwnRequest>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Starting,
    Current,
    Retired,
}

/// The replay of a recorded handshake to a new server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Replay {
    /// There is nothing to replay: the client's own `initialize` is the handshake.
    None,
    Pending,
    /// The server has answered. True for an error; the text is its result or error.
    Answered {
        error: bool,
        outcome: Box<str>,
    },
}

/// A request of the conversation itself.
#[derive(Debug)]
pub(crate) enum OwnRequest {
    /// The recorded `initialize`.
    Initialize,
    /// A setting that the client has made on an earlier server.
    Setting,
    /// A page of a list that the client has fetched, to find out whether it has changed.
    List(super::lists::Probe),
    /// The outcome of a task whose end the server has announced with this text, for clients of
    /// 2026-07-28.
    TaskResult(Box<str>),
}

#[derive(Debug, Default)]
pub(crate) struct Links {
    all: BTreeMap<LinkNumber, LinkEntry>,
    current: Option<LinkNumber>,
    /// The newest link that was ever attached.
    newest: LinkNumber,
}

impl LinkEntry {
    pub(crate) fn starting(limits: QueueLimits) -> Self {
        Self {
            outbox: Outbox::new(limits),
            output: Arc::default(),
            signaled: 0,
            stage: Stage::Starting,
            write_closed: false,
            replay: Replay::None,
            initialized: false,
            log_level: None,
            answered: Arc::default(),
            own: HashMap::new(),
        }
    }
}

impl Links {
    pub(crate) fn insert(&mut self, number: LinkNumber, entry: LinkEntry) {
        self.all.insert(number, entry);
    }

    pub(crate) fn get(&self, number: LinkNumber) -> Option<&LinkEntry> {
        self.all.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: LinkNumber) -> Option<&mut LinkEntry> {
        self.all.get_mut(&number)
    }

    pub(crate) fn remove(&mut self, number: LinkNumber) -> Option<LinkEntry> {
        self.release(number);
        self.all.remove(&number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The current link, if it accepts messages.
    pub(crate) fn current(&self) -> Option<LinkNumber> {
        self.current
    }

    pub(crate) fn is_current(&self, number: LinkNumber) -> bool {
        self.current == Some(number)
    }

    /// The newest link that was ever attached; 0 before the first.
    pub(crate) fn newest(&self) -> LinkNumber {
        self.newest
    }

    /// Makes a link the current one and retires the one before. False if it is not newer than all
    /// that were attached. A link that has ended by now counts as attached all the same.
    pub(crate) fn attach(&mut self, number: LinkNumber) -> bool {
        if number <= self.newest {
            return false;
        }
        self.newest = number;
        if let Some(before) = self.current.take() {
            self.retire(before);
        }
        if let Some(entry) = self.all.get_mut(&number).filter(|entry| !entry.write_closed) {
            entry.stage = Stage::Current;
            self.current = Some(number);
        }
        true
    }

    /// Takes away the place of the current link, which then is retired.
    pub(crate) fn release(&mut self, number: LinkNumber) {
        if self.current == Some(number) {
            self.current = None;
            self.retire(number);
        }
    }

    /// The bytes of all lines that wait for servers.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.all.values().map(|entry| entry.outbox.bytes()).sum()
    }

    /// The signals of the links that have got lines to write since the last call.
    pub(crate) fn take_output_signals(&mut self) -> Vec<Arc<Notify>> {
        let signals = self.all.values_mut().filter_map(|entry| {
            let last = entry.outbox.last_number();
            (mem::replace(&mut entry.signaled, last) < last).then(|| Arc::clone(&entry.output))
        });
        signals.collect()
    }

    fn retire(&mut self, number: LinkNumber) {
        if let Some(entry) = self.all.get_mut(&number) {
            entry.stage = Stage::Retired;
        }
    }
}
