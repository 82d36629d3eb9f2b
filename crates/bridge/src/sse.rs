//! Server-sent events (WHATWG HTML, "Server-sent events"): the body of an answer that is a stream.
//!
//! A stream begins at once with an event that has an id and empty data, so that its client can come back before any message has come
//! (MCP 2025-11-25, "Sending Messages to the Server", point 6), and with the time after which it should. One message is one event
//! with one `data` line, which is why no message holds a line break. A stream that is silent gets a comment from time to time, so
//! that proxies do not cut it.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    BoxError,
    config::Config,
    event_id::EventId,
    shared::Outlet,
    streams::{Event, Lent},
};

/// A comment: something to send that says nothing.
const COMMENT: &[u8] = b":\n\n";

/// The rest of a stream as a body. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct EventStream {
    /// `None` once the stream is over.
    outlet: Option<Outlet>,
    /// What is sent before anything is read from the stream: the first byte comes at once.
    first: Option<Bytes>,
    lent: Lent,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
}

impl EventStream {
    /// The rest of a stream.
    pub(crate) fn new(outlet: Outlet, config: &Config) -> Self {
        let place = outlet.prime();
        Self {
            first: place.as_ref().map(|place| prime(place, config.retry)),
            lent: outlet.lent(),
            outlet: place.map(|_| outlet),
            keep_alive: config.keep_alive,
            silence: Box::pin(sleep(config.keep_alive)),
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(outlet) = &self.outlet else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(event) = outlet.poll_next(context) {
            if event.as_ref().is_none_or(|event| event.last) {
                self.outlet = None;
            }
            return Poll::Ready(event.map(|event| self.lent.lend(encode(&event))));
        }
        ready!(self.silence.as_mut().poll(context));
        Poll::Ready(Some(Bytes::from_static(COMMENT)))
    }
}

impl Body for EventStream {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let bytes = ready!(self.poll_bytes(context));
        let next = Instant::now() + self.keep_alive;
        self.silence.as_mut().reset(next);
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.outlet.is_none() && self.first.is_none()
    }
}

/// The event that a stream begins with.
fn prime(place: &EventId, retry: Duration) -> Bytes {
    let retry = retry.as_millis();
    format!("id: {place}\nretry: {retry}\ndata: \n\n").into()
}

/// One event with a message that has no line break in it.
fn encode(event: &Event) -> Bytes {
    let head = format!("id: {}\nevent: message\ndata: ", event.id);
    [head.as_bytes(), &event.line, b"\n\n"].concat().into()
}
