//! Messages that the server sends outside any request: a stream that is open while they are for
//! the client, because it listens or has subscriptions.
//!
//! A server without such a stream says so once (405), and is not asked again. A stream that ends is
//! resumed after its last event, at the pace that the server asks for, and more slowly each time it
//! fails or brings nothing. An event id is valid in one session at the server: in another one, and
//! after a refusal, the stream starts from the beginning.

use std::{future::pending, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::time::sleep;

use super::{
    endpoint::{SessionHeaders, UpstreamRequest, has_media_type},
    error::HttpError,
    events::{SseReader, StreamPosition},
    session::ServerSession,
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

impl ServerSession {
    /// Receives the server's own messages while they are for the client. Returns when the session
    /// is lost.
    pub(super) async fn listen(self: &Arc<Self>) {
        let mut expected = self.inbox.shared.expects_messages.subscribe();
        let mut position = ListenPosition::default();
        let mut failures = 0_u32;
        self.initialized.cancelled().await;
        loop {
            // The sender lives as long as the session here.
            let _ = expected.wait_for(|expected| *expected).await;
            let outcome = tokio::select! {
                outcome = self.read_events(&mut position) => outcome,
                _ = expected.wait_for(|expected| !*expected) => continue,
            };
            match outcome {
                Ok(StreamEnd::Progressed) => failures = 0,
                Ok(StreamEnd::Unchanged) => failures = failures.saturating_add(1),
                Ok(StreamEnd::Unsupported) => return pending().await,
                Err(error) if error.is_final() => {
                    tracing::warn!(reason = error.describe(), "cannot receive messages of the MCP server");
                    return;
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    tracing::debug!(reason = error.describe(), "cannot listen to the MCP server now");
                }
            }
            let pause = position
                .stream
                .retry
                .saturating_mul(1 << failures.min(6))
                .min(MAX_PAUSE);
            tokio::select! {
                () = sleep(pause) => {}
                _ = expected.wait_for(|expected| !*expected) => {}
            }
        }
    }

    async fn read_events(self: &Arc<Self>, position: &mut ListenPosition) -> Result<StreamEnd, HttpError> {
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
            return Err(HttpError::Refused(status));
        }
        let mut events = SseReader::new(response, self.inbox.config.max_line, position.clone());
        let before = position.last_id.clone();
        let mut progressed = false;
        loop {
            let next = events.next().await;
            position.clone_from(events.position());
            match next? {
                Some(data) => {
                    progressed = true;
                    self.inbox.receive(&data);
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
