//! Server-sent events (WHATWG HTML, "Server-sent events"): the body of a streamed answer.
//!
//! For clients of 2025-11-25, a stream begins at once with an event that has an id and empty data,
//! so that its client can resume before the first message ("Sending Messages to the Server", point
//! 6), and with the reconnection time. Earlier clients fail on an event without data. Each message
//! is one event with one `data` line, because no message holds a line break. A silent stream gets a
//! comment from time to time, so that proxies keep it open.

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
    shared::StreamHandle,
    streams::{EventId, StreamEvent, Unflushed},
};

const KEEP_ALIVE_COMMENT: &[u8] = b":\n\n";

/// The rest of a stream as a response body. Dropping it detaches the reader.
#[derive(Debug)]
pub(super) struct SseBody {
    /// `None` after the end of the stream.
    handle: Option<StreamHandle>,
    /// The priming event, until it is sent.
    first: Option<Bytes>,
    unflushed: Unflushed,
    keep_alive: Duration,
    silence: Pin<Box<Sleep>>,
}

impl SseBody {
    pub(super) fn new(handle: StreamHandle, config: &Config) -> Self {
        let start = handle.begin_events();
        let prime = start.as_ref().filter(|(_, prime)| *prime);
        Self {
            first: prime.map(|(id, _)| priming_event(id, config.retry)),
            unflushed: handle.unflushed(),
            handle: start.map(|_| handle),
            keep_alive: config.keep_alive,
            silence: Box::pin(sleep(config.keep_alive)),
        }
    }

    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Some(handle) = &self.handle else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(event) = handle.poll_event(context) {
            if event.as_ref().is_none_or(|event| event.last) {
                self.handle = None;
            }
            return Poll::Ready(event.map(|event| self.unflushed.track(encode(&event))));
        }
        ready!(self.silence.as_mut().poll(context));
        Poll::Ready(Some(Bytes::from_static(KEEP_ALIVE_COMMENT)))
    }
}

impl Body for SseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let bytes = ready!(self.poll_bytes(context));
        let next = Instant::now() + self.keep_alive;
        self.silence.as_mut().reset(next);
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.handle.is_none() && self.first.is_none()
    }
}

fn priming_event(id: &EventId, retry: Duration) -> Bytes {
    let retry = retry.as_millis();
    format!("id: {id}\nretry: {retry}\ndata: \n\n").into()
}

/// Encodes a message, which holds no line break.
fn encode(event: &StreamEvent) -> Bytes {
    let id = event.id.as_ref().map(|id| format!("id: {id}\n")).unwrap_or_default();
    let head = format!("{id}event: message\ndata: ");
    [head.as_bytes(), &event.line, b"\n\n"].concat().into()
}
