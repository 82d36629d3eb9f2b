//! Messages that the server sends outside any request: a stream that is open while a client of the
//! session listens.
//!
//! A server without such a stream says so once (405), and is not asked again. A stream that ends is
//! resumed after its last event, at the pace that the server asks for, and more slowly each time it
//! fails or brings nothing. An event id is valid in one session at the server: in another one, and
//! after a refusal, the stream starts from the beginning.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

use super::SharedServerSession;
use crate::shared_server::{
    endpoint::{SessionHeaders, UpstreamRequest, has_media_type},
    error::SharedServerError,
    events::{SseReader, StreamPosition},
    message,
};

/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The end of a stream.
enum StreamEnd {
    /// The stream ended after an event.
    Progressed,
    /// The stream ended without anything new.
    Unchanged,
    /// The server has no such stream.
    Unsupported,
}

/// The position in the stream of one session at the server.
#[derive(Debug, Default)]
struct ListenPosition {
    stream: StreamPosition,
    headers: SessionHeaders,
}

impl SharedServerSession {
    /// Writes the server's own messages to `lines` while a client listens. Returns when the server
    /// has no such stream, or the bridge is closed; with [`SharedServerError::SessionLost`] when
    /// the session is lost.
    pub(super) async fn listen(
        self: &Arc<Self>,
        mut listeners: watch::Receiver<usize>,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), SharedServerError> {
        let mut position = ListenPosition::default();
        let mut failures = 0_u32;
        loop {
            if listeners.wait_for(|count| *count > 0).await.is_err() {
                return Ok(());
            }
            let outcome = tokio::select! {
                outcome = self.read_events(&mut position, lines) => outcome,
                _ = listeners.wait_for(|count| *count == 0) => continue,
            };
            match outcome {
                Ok(StreamEnd::Progressed) => failures = 0,
                Ok(StreamEnd::Unchanged) => failures = failures.saturating_add(1),
                Ok(StreamEnd::Unsupported) => return Ok(()),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(session = %self.tag, reason = error.describe(), "cannot listen to the server now");
                }
            }
            let pause = position
                .stream
                .retry
                .saturating_mul(1 << failures.min(6))
                .min(MAX_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                _ = listeners.wait_for(|count| *count == 0) => {}
            }
        }
    }

    async fn read_events(
        self: &Arc<Self>,
        position: &mut ListenPosition,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<StreamEnd, SharedServerError> {
        let listen = |headers: &SessionHeaders| UpstreamRequest::Listen(position.last_id_in(headers));
        let (response, headers) = self.send(listen).await?;
        if headers != position.headers {
            *position = ListenPosition {
                stream: StreamPosition::default(),
                headers,
            };
        }
        let position = &mut position.stream;
        let status = response.status();
        if status.is_client_error() {
            *position = StreamPosition::default();
        }
        // MCP 2025-11-25, transports, "Listening for Messages from the Server": a server without
        // this stream answers 405. One that answers 404 in a session that it has only just opened
        // has none either.
        if matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND)
            || status.is_success() && !has_media_type(&response, "text/event-stream")
        {
            return Ok(StreamEnd::Unsupported);
        }
        if !status.is_success() {
            return Err(SharedServerError::Refused(status));
        }
        let mut events = SseReader::new(response, self.endpoint.config.max_message, position.clone());
        let before = position.last_id.clone();
        let mut progressed = false;
        loop {
            let next = events.next().await;
            position.clone_from(events.position());
            match next? {
                Some(data) => {
                    progressed = true;
                    // Fails only if the bridge is closed, and then the pump stops.
                    drop(lines.send(message::line(data)).await);
                }
                None if progressed || position.last_id != before => return Ok(StreamEnd::Progressed),
                None => return Ok(StreamEnd::Unchanged),
            }
        }
    }
}

impl ListenPosition {
    /// The last event id, if it is of the session with these headers.
    fn last_id_in(&self, headers: &SessionHeaders) -> Option<String> {
        let last_id = (*headers == self.headers).then_some(self.stream.last_id.as_ref());
        last_id.flatten().cloned()
    }
}
