//! The era of handshakes and sessions (MCP up to 2025-11-25), as one synchronous state machine.
//!
//! What clients send, what the server writes, the passing of time and the closing of streams go in as calls; lines for the
//! server and events for streams come out of [`outbox`](Legacy::outbox) and [`streams`](Legacy::streams). There is no io in here,
//! and time is an argument, so everything that can happen can be replayed in a test.
//!
//! What holds at all times:
//! - A request that was taken gets exactly one answer on its own stream: the server's, or one error of the bridge.
//! - A message of the server that is no answer is put on one stream at most.
//! - Every request in flight, in either direction, and every stream that only waits for a client to come back, has exactly one
//!   entry in `due`.
//!
//! This file has what clients send; `batch` the same in arrays; `readers` has how clients come and go; `server` has what the
//! server writes; `time` what is given up and the end.
//!
//! Left out: requests with the 2026-07-28 `_meta`, which belong to another era.

mod asks;
mod batch;
mod handshake;
mod readers;
mod server;
mod snapshot;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use tokio::time::Instant;

pub use self::snapshot::Snapshot;
use self::{
    asks::Asks,
    handshake::{Begin, Handshake},
    table::{Entry, Table},
    wishes::Wish,
};
pub(crate) use self::{
    batch::split,
    handshake::{SUPPORTED, error_code, result_version},
};
use crate::{
    config::Config,
    envelope::{Envelope, Kind},
    event_id::Asked,
    faults::{Fault, Faults},
    id::{Id, Key},
    json,
    outbox::Outbox,
    refusal::Refusal,
    rpc,
    streams::{Reader, StreamId, Streams},
};

const ENDED: &str = "the MCP server of this session has ended";

/// The state machine of one bridge.
#[derive(Debug)]
pub(crate) struct Legacy {
    config: Config,
    life: Life,
    table: Table,
    asks: Asks,
    handshake: Handshake,
    due: BTreeSet<(Instant, Due)>,
    /// The streams of requests that failed and of which the server can have read nothing, until somebody asks.
    unread: BTreeSet<StreamId>,
    /// The streams that only wait for a client to come back, and until when.
    idle: BTreeMap<StreamId, Instant>,
    faults: Arc<Faults>,
    /// The streams toward clients, to be polled by their readers.
    pub(crate) streams: Streams,
    /// The lines toward the server, to be written by the writer.
    pub(crate) outbox: Outbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Messages pass both ways.
    Open,
    /// The server takes no more messages; what it has written may still come.
    Deaf,
    /// Nothing passes any more.
    Ended,
}

/// What happens when its time has come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A request of the client is given up.
    Request(u64),
    /// A request of the server is given up.
    Ask(Key),
    /// A stream is forgotten.
    Stream(StreamId),
}

impl Legacy {
    /// A fresh machine.
    pub(crate) fn new(config: Config, faults: Arc<Faults>) -> Self {
        Self {
            life: Life::Open,
            table: Table::default(),
            asks: Asks::default(),
            handshake: Handshake::default(),
            due: BTreeSet::new(),
            unread: BTreeSet::new(),
            idle: BTreeMap::new(),
            faults,
            // Tells this bridge from the ones before and after it; nobody has to be unable to guess it.
            streams: Streams::new(RandomState::new().hash_one("epoch"), &config),
            outbox: Outbox::new(config.outgoing),
            config,
        }
    }

    /// Takes a request. Its answer, and what comes before it, will be on the stream.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdInFlight`], [`Refusal::Busy`], [`Refusal::HandshakeTooLarge`] and [`Refusal::Initializing`].
    pub(crate) fn request(
        &mut self,
        now: Instant,
        mut message: Envelope,
        id: Id,
        method: &str,
    ) -> Result<Reader, Refusal> {
        if self.table.contains(id.key()) {
            return Err(Refusal::IdInFlight);
        }
        self.check_room(1)?;
        let initialize = method == "initialize" && self.life == Life::Open;
        if initialize {
            match self.handshake.begin() {
                Begin::Forward if handshake::is_too_large(&message) => return Err(Refusal::HandshakeTooLarge),
                Begin::Forward => handshake::lower(&mut message),
                Begin::Recorded(result) => {
                    let reader = self.streams.open_private(Asked::new([&id]), 1);
                    self.streams.answer(reader.stream, rpc::result(id.raw(), &result));
                    return Ok(reader);
                }
                Begin::Busy => return Err(Refusal::Initializing),
            }
        }
        let asked = Asked::new([&id]);
        // Before the handshake is made there is no session whose messages could be on a stream.
        let (reader, adopted) = if initialize {
            (self.streams.open_private(asked, 1), Vec::new())
        } else {
            self.streams.open_exchange(asked, 1)
        };
        self.forward(now, &message, id, method, reader.stream);
        self.adopted(now, &adopted);
        Ok(reader)
    }

    /// Repeats a recorded handshake toward a fresh server. The answer will be on the stream and nothing else.
    /// `None` if the snapshot is unusable.
    pub(crate) fn replay(&mut self, now: Instant, snapshot: &Snapshot) -> Option<Reader> {
        let message = snapshot.initialize(&self.table.next_number().to_string())?;
        self.request_of_own(now, &message)
    }

    /// Repeats toward a fresh server what the client had asked for. The answers will be on the streams, one on each.
    pub(crate) fn replay_wishes(&mut self, now: Instant, snapshot: &Snapshot) -> Vec<Reader> {
        let wishes = snapshot.wishes();
        let mut readers = Vec::new();
        for wish in wishes.iter() {
            let text = wish.request(&self.table.next_number().to_string());
            let message = Envelope::parse(text.as_bytes()).ok();
            readers.extend(message.and_then(|message| self.request_of_own(now, &message)));
        }
        readers
    }

    /// Confirms a replayed handshake as its client once did.
    pub(crate) fn confirm(&mut self) {
        self.handshake.confirm();
        self.tell_server(rpc::initialized());
    }

    /// Takes a notification.
    ///
    /// # Errors
    ///
    /// [`Refusal::Stalled`] and [`Refusal::Ended`].
    pub(crate) fn notify(&mut self, now: Instant, message: Envelope, method: &str) -> Result<(), Refusal> {
        if self.life != Life::Open {
            return Err(Refusal::Ended);
        }
        let initialized = method == "notifications/initialized";
        if method == "notifications/cancelled" {
            self.cancel(now, message);
            return Ok(());
        }
        // A client whose `initialize` was answered from the record confirms once more; the server knows already.
        if initialized && self.handshake.is_confirmed() {
            return Ok(());
        }
        if !self.outbox.offer(message.into_line()) {
            return Err(Refusal::Stalled);
        }
        if initialized {
            self.handshake.confirm();
        }
        Ok(())
    }

    /// Takes the answer to a request of the server.
    ///
    /// # Errors
    ///
    /// [`Refusal::Stalled`] and [`Refusal::Ended`].
    pub(crate) fn respond(&mut self, message: &Envelope, id: Option<&Id>) -> Result<(), Refusal> {
        if self.life != Life::Open {
            return Err(Refusal::Ended);
        }
        let Some(ask) = id.and_then(|id| self.asks.take(id.key())) else {
            self.faults.count(Fault::UnknownResponse);
            return Ok(());
        };
        if !self.outbox.offer(message.with_id(ask.id.raw())) {
            self.asks.insert(ask);
            return Err(Refusal::Stalled);
        }
        self.due.remove(&(ask.deadline, Due::Ask(ask.id.key().clone())));
        Ok(())
    }

    /// The protocol version of the session, once negotiated.
    pub(crate) fn version(&self) -> Option<&str> {
        self.handshake.version()
    }

    /// What a fresh server must be told to stand in for this one; `None` before the handshake has a result.
    pub(crate) fn snapshot(&self) -> Option<Snapshot> {
        self.handshake.snapshot()
    }

    fn cancel(&mut self, now: Instant, mut message: Envelope) {
        let id = message.param("requestId").and_then(Id::parse);
        let Some((number, entry)) = id.and_then(|id| self.table.by_id(id.key())) else {
            self.faults.count(Fault::UnknownCancel);
            return;
        };
        // `initialize` must not be cancelled (MCP 2025-11-25, "Cancellation").
        if self.handshake.is_asked(number) {
            return;
        }
        let deadline = entry.deadline.min(now + self.config.cancel_grace);
        self.due.remove(&(entry.deadline, Due::Request(number)));
        self.due.insert((deadline, Due::Request(number)));
        entry.deadline = deadline;
        entry.cancelled = true;
        message.set_param("requestId", &number.to_string());
        self.tell_server(message.into_line());
    }

    /// Sends a request to the server, or puts on its stream why not.
    fn forward(&mut self, now: Instant, message: &Envelope, id: Id, method: &str, stream: StreamId) {
        if self.life != Life::Open {
            self.note_unread(stream);
            self.streams
                .answer(stream, rpc::error(id.raw(), rpc::UNAVAILABLE, ENDED));
            return;
        }
        let number = self.table.next_number();
        if !self.outbox.offer(message.with_id(&number.to_string())) {
            let why = "the MCP server of this session does not read its input";
            self.streams.answer(stream, rpc::error(id.raw(), rpc::UNAVAILABLE, why));
            return;
        }
        if method == "initialize" {
            self.handshake.asked(number, message);
        }
        let deadline = now + self.config.request_timeout;
        let number = self.table.insert(Entry {
            id,
            stream,
            token: progress_token(message),
            line: self.outbox.last(),
            deadline,
            cancelled: false,
            wish: Wish::of(method, message),
        });
        self.due.insert((deadline, Due::Request(number)));
    }

    /// Whether the server has ended and can have read nothing of the request of this stream. It is said once.
    pub(crate) fn was_unread(&mut self, stream: StreamId) -> bool {
        self.unread.remove(&stream)
    }

    fn note_unread(&mut self, stream: StreamId) {
        // Whoever has gone away does not ask.
        if !self.streams.is_attached(stream) {
            return;
        }
        // Nor does who goes away just now, so there is a limit: the one of requests in flight.
        if self.unread.len() >= self.config.max_in_flight {
            self.unread.pop_first();
        }
        self.unread.insert(stream);
    }

    fn request_of_own(&mut self, now: Instant, message: &Envelope) -> Option<Reader> {
        let Kind::Request { id, method } = message.kind().clone() else {
            return None;
        };
        let reader = self.streams.open_private(Asked::default(), 1);
        self.forward(now, message, id, &method, reader.stream);
        Some(reader)
    }

    /// Whether there is room for so many requests more.
    fn check_room(&self, requests: usize) -> Result<(), Refusal> {
        let Config {
            max_in_flight,
            max_listeners,
            ..
        } = self.config;
        let full = self.table.len().saturating_add(requests) > max_in_flight
            || self.streams.count_attached() >= max_in_flight.saturating_add(max_listeners);
        if full { Err(Refusal::Busy) } else { Ok(()) }
    }
}

fn progress_token(message: &Envelope) -> Option<Key> {
    let meta = message.param("_meta")?;
    Some(Id::parse(&meta[json::member(meta, "progressToken")?])?.key().clone())
}

/// The supported versions as a JSON array.
pub(crate) fn supported() -> String {
    format!("[{}]", SUPPORTED.map(json::quote).join(","))
}
