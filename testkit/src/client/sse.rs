//! Server-sent events, read by the crate `sse-stream`.
//!
//! An event with empty data counts as one, since MCP primes its streams with it.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::Full;
use sse_stream::{Sse, SseStream};

use super::ClientError;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    pub id: Option<String>,
    /// Its type; `None` means `message`.
    pub event: Option<String>,
    pub data: String,
    /// The reconnection time that it sets, in milliseconds.
    pub retry: Option<u64>,
}

pub struct EventStream(SseStream<reqwest::Body>);

impl EventStream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        let response = http::Response::from(response);
        Self(SseStream::new(response.into_body()))
    }

    /// Waits for the next event; `None` is the clean end of the stream. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let event = self.0.next().await.transpose().map_err(ClientError::Stream)?;
        Ok(event.map(Event::from))
    }
}

/// The events of a body; an incomplete last one is dropped.
pub(super) async fn events(body: Bytes) -> Result<Vec<Event>, ClientError> {
    let events = SseStream::new(Full::new(body)).map_ok(Event::from);
    events.try_collect().await.map_err(ClientError::Stream)
}

impl From<Sse> for Event {
    fn from(event: Sse) -> Self {
        Self {
            id: event.id,
            event: event.event,
            data: event.data.unwrap_or_default(),
            retry: event.retry,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn priming_events_count_and_incomplete_ones_do_not() {
        let text = ": keep-alive\n\nid: 1\ndata: a\ndata: b\n\nevent: ping\r\nretry: 1500\r\ndata:x\r\n\r\nid: 3\ndata:\n\ndata: cut";
        let expected = [
            Event {
                id: Some("1".into()),
                data: "a\nb".into(),
                ..Event::default()
            },
            Event {
                event: Some("ping".into()),
                retry: Some(1500),
                data: "x".into(),
                ..Event::default()
            },
            Event {
                id: Some("3".into()),
                ..Event::default()
            },
        ];
        assert_eq!(events(Bytes::from(text)).await.unwrap(), expected);
        for size in 1..text.len() {
            let pieces = text
                .as_bytes()
                .chunks(size)
                .map(|piece| Ok::<_, std::io::Error>(Bytes::from(piece)));
            let stream = SseStream::from_bytes_stream(futures_util::stream::iter(pieces));
            let events: Vec<Event> = stream.map_ok(Event::from).try_collect().await.unwrap();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }
}
