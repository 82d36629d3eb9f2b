//! How the readers of streams come, come back and go.
//!
//! A client that goes away has not cancelled anything (MCP 2025-11-25, "Sending Messages to the Server", point 6). If it has an event id,
//! what belongs to its stream gathers there until it comes back, or until there is nothing left to wait for and its time is over. A client
//! that comes back too late for an answer gets an error for its request: a status would only make it try again.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::{Due, Legacy, Life};
use crate::{
    event_id::EventId,
    faults::Fault,
    refusal::Refusal,
    rpc,
    streams::{About, Event, Item, Reader, StreamId},
};

impl Legacy {
    /// Opens a stream for what belongs to no request. On a server that has ended the stream ends at once.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`].
    pub(crate) fn listen(&mut self, now: Instant) -> Result<Reader, Refusal> {
        self.check_room(0)?;
        let (reader, adopted) = self.streams.open_listener();
        if self.life == Life::Ended {
            self.streams.end_listeners();
        }
        self.adopted(now, &adopted);
        Ok(reader)
    }

    /// Goes on with a stream where its client left it. Of a stream that is not kept, or that another bridge had, the requests
    /// get their errors; if there are none the client listens anew.
    ///
    /// # Errors
    ///
    /// [`Refusal::Busy`].
    pub(crate) fn resume(&mut self, now: Instant, from: &EventId) -> Result<Reader, Refusal> {
        self.check_room(0)?;
        if let Some((reader, adopted)) = self.streams.resume(from) {
            self.needed(reader.stream);
            if self.life == Life::Ended {
                self.streams.end_listeners();
            }
            self.adopted(now, &adopted);
            return Ok(reader);
        }
        let ids = from.asked.ids();
        if ids.is_empty() {
            return self.listen(now);
        }
        let reader = self.streams.open_private(from.asked.clone(), ids.len());
        for id in ids {
            self.faults.count(Fault::AnswerLost);
            let why = "the answer to this request is not kept any more";
            self.streams
                .answer(reader.stream, rpc::error(id.raw(), rpc::UNAVAILABLE, why));
        }
        Ok(reader)
    }

    /// The next event for a reader; `None` once its stream has ended.
    pub(crate) fn poll(&mut self, reader: Reader, context: &Context<'_>) -> Poll<Option<Event>> {
        let polled = self.streams.poll(reader, context);
        self.take_note();
        polled
    }

    /// A reader is gone.
    pub(crate) fn hang_up(&mut self, now: Instant, reader: Reader) {
        for item in self.streams.close(reader) {
            match item {
                Item::Answer(_) => self.faults.count(Fault::AnswerAbandoned),
                Item::Notification {
                    about: About::Request, ..
                } => {}
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
        self.not_needed(now, reader.stream);
        self.take_note();
    }

    /// If a stream waits for nothing any more but for a client that comes back, it does so for a limited time.
    pub(super) fn not_needed(&mut self, now: Instant, stream: StreamId) {
        if self.life != Life::Ended && self.streams.is_idle(stream) && !self.idle.contains_key(&stream) {
            let until = now + self.config.replay_time;
            self.idle.insert(stream, until);
            self.due.insert((until, Due::Stream(stream)));
        }
    }

    /// Nobody comes back to this stream any more.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.idle.remove(&stream);
        for item in self.streams.forget(stream) {
            if matches!(item, Item::Answer(_)) {
                self.faults.count(Fault::AnswerAbandoned);
            }
        }
    }

    pub(super) fn needed(&mut self, stream: StreamId) {
        if let Some(until) = self.idle.remove(&stream) {
            self.due.remove(&(until, Due::Stream(stream)));
        }
    }
}
