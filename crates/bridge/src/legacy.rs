//! The era of handshakes and sessions (MCP up to 2025-11-25), as one synchronous state machine.
//!
//! What clients send, what the server writes, the passing of time and the closing of streams go in as calls; lines for the
//! server and events for streams come out of [`outbox`](Legacy::outbox) and [`streams`](Legacy::streams). There is no io in here,
//! and time is an argument, so everything that can happen can be replayed in a test.
//!
//! What holds at all times:
//! - A request that was taken gets exactly one answer on its own stream: the server's, or one error of the bridge.
//! - A message of the server that is no answer is put on one stream at most.
//! - Every request in flight, in either direction, has exactly one entry in `due`.
//!
//! This file has what clients send; `server` has what the server writes, `time` what is given up and the end.
//!
//! Left out: event ids and replay of streams; requests with the 2026-07-28 `_meta`, which belong to another era.

mod asks;
mod handshake;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod time;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use tokio::time::Instant;

pub use self::handshake::Snapshot;
pub(crate) use self::handshake::{SUPPORTED, error_code, result_version};
use self::{
    asks::Asks,
    handshake::{Begin, Handshake},
    table::{Entry, Table},
};
use crate::{
    config::Config,
    envelope::{Envelope, Kind},
    faults::{Fault, Faults},
    id::{Id, Key},
    json,
    outbox::Outbox,
    refusal::Refusal,
    rpc,
    streams::{Item, StreamId, Streams},
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
            faults,
            streams: Streams::new(config.backlog, config.max_listeners),
            outbox: Outbox::new(config.outgoing),
            config,
        }
    }

    /// Takes a request. Its answer, and what comes before it, will be on the stream.
    ///
    /// # Errors
    ///
    /// [`Refusal::IdInFlight`], [`Refusal::Busy`] and [`Refusal::Initializing`].
    pub(crate) fn request(
        &mut self,
        now: Instant,
        mut message: Envelope,
        id: Id,
        method: &str,
    ) -> Result<StreamId, Refusal> {
        if self.table.contains(id.key()) {
            return Err(Refusal::IdInFlight);
        }
        self.check_room()?;
        if self.life != Life::Open {
            return Ok(self.answer_at_once(rpc::error(id.raw(), rpc::UNAVAILABLE, ENDED)));
        }
        let initialize = method == "initialize";
        if initialize {
            match self.handshake.begin() {
                Begin::Forward => handshake::lower(&mut message),
                Begin::Recorded(result) => {
                    return Ok(self.answer_at_once(rpc::result(id.raw(), &result)));
                }
                Begin::Busy => return Err(Refusal::Initializing),
            }
        }
        let number = self.table.next_number();
        if !self.outbox.offer(message.with_id(&number.to_string())) {
            let why = "the MCP server of this session does not read its input";
            return Ok(self.answer_at_once(rpc::error(id.raw(), rpc::UNAVAILABLE, why)));
        }
        if initialize {
            self.handshake.asked(number, &message);
        }
        let (stream, adopted) = self.streams.open_exchange();
        self.begin(now, id, stream, progress_token(&message));
        self.adopted(now, &adopted);
        Ok(stream)
    }

    /// Repeats a recorded handshake toward a fresh server. The answer will be on the stream and nothing else.
    /// `None` if the snapshot is unusable.
    pub(crate) fn replay(&mut self, now: Instant, snapshot: &Snapshot) -> Option<StreamId> {
        let number = self.table.next_number();
        let message = snapshot.initialize(&number.to_string())?;
        let Kind::Request { id, .. } = message.kind().clone() else {
            return None;
        };
        if !self.outbox.offer(message.with_id(id.raw())) {
            return None;
        }
        self.handshake.asked(number, &message);
        let stream = self.streams.open_private();
        self.begin(now, id, stream, None);
        Some(stream)
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

    /// Opens a stream for what belongs to no request. On a server that has ended the stream ends at once.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`].
    pub(crate) fn listen(&mut self, now: Instant) -> Result<StreamId, Refusal> {
        self.check_room()?;
        let (stream, adopted) = self.streams.open_listener();
        if self.life == Life::Ended {
            self.streams.end_listeners();
        }
        self.adopted(now, &adopted);
        Ok(stream)
    }

    /// The reader of a stream is gone.
    pub(crate) fn hang_up(&mut self, now: Instant, stream: StreamId) {
        self.table.detach(stream);
        for item in self.streams.close(stream) {
            match item {
                Item::Answer(_) => self.faults.count(Fault::AnswerAbandoned),
                Item::Notification { bound: true, .. } => {}
                Item::Notification { .. } | Item::Ask { .. } if self.life == Life::Ended => {}
                item @ Item::Notification { .. } => {
                    self.streams.route(item);
                }
                Item::Ask { ref key, .. } => {
                    let key = key.clone();
                    let routed = self.streams.route(item);
                    self.asked(now, &key, &routed);
                }
            }
        }
        self.count_dropped();
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

    fn begin(&mut self, now: Instant, id: Id, stream: StreamId, token: Option<Key>) {
        let deadline = now + self.config.request_timeout;
        let number = self.table.insert(Entry {
            id,
            stream: Some(stream),
            token,
            deadline,
            cancelled: false,
        });
        self.due.insert((deadline, Due::Request(number)));
    }

    fn check_room(&self) -> Result<(), Refusal> {
        let Config {
            max_in_flight,
            max_listeners,
            ..
        } = self.config;
        let full =
            self.table.len() >= max_in_flight || self.streams.len() >= max_in_flight.saturating_add(max_listeners);
        if full { Err(Refusal::Busy) } else { Ok(()) }
    }

    fn answer_at_once(&mut self, line: Bytes) -> StreamId {
        let stream = self.streams.open_private();
        self.streams.answer(stream, line);
        stream
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
