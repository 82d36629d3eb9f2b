//! The response to a request: as JSON, as an event stream, or as an event stream in several parts.
//!
//! A stream that ends before the response is resumed after its last event (MCP 2025-11-25,
//! transports, "Resumability and Redelivery"), since a server may close a connection at any time. A
//! stream without event ids is broken off.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{sync::mpsc, time::sleep};

use super::SharedServerSession;
use crate::shared_server::{
    endpoint::{SESSION_ID, SessionHeaders, UpstreamRequest, has_media_type},
    error::SharedServerError,
    events::{SseReader, StreamPosition},
    message,
};

/// Resumptions in a row without any event, or event id: a server may let its client poll. The
/// bridge's limit for the request ends the polling.
const MAX_RESUMPTIONS: u32 = 5;

/// The longest session id that is accepted, in bytes.
const MAX_SESSION_ID: usize = 1024;

/// A request in flight.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) message: Bytes,
    /// The JSON-RPC id, as JSON text.
    pub(super) id: String,
    /// The request is `initialize`.
    pub(super) handshake: bool,
}

impl SharedServerSession {
    /// Sends a request, and writes all messages that arrive for it to `lines`, the response last.
    ///
    /// # Errors
    ///
    /// Any [`SharedServerError`]; then no response is written.
    pub(super) async fn request(
        self: &Arc<Self>,
        request: &PendingRequest,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), SharedServerError> {
        let post = UpstreamRequest::Post(request.message.clone());
        let (response, mut headers) = if request.handshake {
            let headers = SessionHeaders::default();
            (self.send_as(&post, &headers).await?, headers)
        } else {
            self.send(|_| post.clone()).await?
        };
        let status = response.status();
        if request.handshake {
            headers.session = response.headers().get(SESSION_ID).cloned();
            if headers.session.as_ref().is_some_and(|id| id.len() > MAX_SESSION_ID) {
                return Err(SharedServerError::NotMcp);
            }
        }
        if status.is_success() && has_media_type(&response, "text/event-stream") {
            return self.read_stream(request, response, &headers, lines).await;
        }
        if has_media_type(&response, "application/json") {
            let body = self.endpoint.read_body(response).await?;
            if message::is_response_to(&body, &request.id) {
                self.forward(request, body, &headers, lines).await;
                return Ok(());
            }
        }
        Err(if status.is_success() {
            SharedServerError::NotMcp
        } else {
            SharedServerError::Refused(status)
        })
    }

    /// Sends a message without a response.
    pub(super) async fn notify(self: &Arc<Self>, message: Bytes) -> Result<(), SharedServerError> {
        let (response, _) = self.send(|_| UpstreamRequest::Post(message.clone())).await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(SharedServerError::Refused(status))
        }
    }

    /// Forwards the events of a stream. A stream that ends early is resumed in the session in which
    /// it began, even if that has been reopened.
    async fn read_stream(
        self: &Arc<Self>,
        request: &PendingRequest,
        response: reqwest::Response,
        headers: &SessionHeaders,
        lines: &mpsc::Sender<Bytes>,
    ) -> Result<(), SharedServerError> {
        let limit = self.endpoint.config.max_message;
        let mut events = SseReader::new(response, limit, StreamPosition::default());
        let mut resumptions = 0;
        let mut seen = None;
        loop {
            match events.next().await {
                Ok(Some(data)) => {
                    resumptions = 0;
                    let complete = message::is_response_to(&data, &request.id);
                    self.forward(request, data, headers, lines).await;
                    if complete {
                        return Ok(());
                    }
                }
                Ok(None) | Err(SharedServerError::BrokenOff) => {
                    let position = events.position().clone();
                    if position.last_id != seen {
                        seen.clone_from(&position.last_id);
                        resumptions = 0;
                    }
                    resumptions += 1;
                    if position.last_id.is_none() || resumptions > MAX_RESUMPTIONS {
                        return Err(SharedServerError::BrokenOff);
                    }
                    sleep(position.retry).await;
                    let resume = UpstreamRequest::Listen(position.last_id.clone());
                    let response = self.send_as(&resume, headers).await?;
                    if !response.status().is_success() || !has_media_type(&response, "text/event-stream") {
                        return Err(SharedServerError::BrokenOff);
                    }
                    events = SseReader::new(response, limit, position);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Forwards a message. The outcome of a handshake is stored before the bridge sees it, since
    /// the next message may follow at once.
    async fn forward(
        &self,
        request: &PendingRequest,
        message: Vec<u8>,
        headers: &SessionHeaders,
        lines: &mpsc::Sender<Bytes>,
    ) {
        if request.handshake
            && message::is_response_to(&message, &request.id)
            && let Some(version) = message::negotiated_version(&message)
        {
            self.opened(headers.session.clone(), &version);
        }
        // Fails only if the bridge is closed, and then no request waits.
        let _ = lines.send(message::line(message)).await;
    }
}
