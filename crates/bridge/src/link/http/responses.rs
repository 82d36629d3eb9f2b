//! The response to a request: as JSON, as an event stream, or as an event stream in several parts.
//!
//! A stream that ends before the response is resumed after its last event (MCP 2025-11-25,
//! transports, "Resumability and Redelivery"), since a server may close a connection at any time. A
//! stream without event ids is broken off.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use tokio::time::sleep;

use super::{
    endpoint::{SESSION_ID, SessionHeaders, UpstreamRequest, has_media_type},
    error::HttpError,
    events::{SseReader, StreamPosition, read_body},
    session::{ServerSession, may_mean_forgotten},
};
use crate::{
    jsonrpc::{Envelope, MessageKind},
    link::era::ServerEra,
    machine,
};

/// Resumptions in a row without any event, or event id: a server may let its client poll. The
/// conversation's limit for the request ends the polling.
const MAX_RESUMPTIONS: u32 = 5;

/// The longest session id that is accepted, in bytes.
const MAX_SESSION_ID: usize = 1024;

/// A request in flight.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) line: Bytes,
    /// Its JSON-RPC id.
    pub(super) number: u64,
    /// It is `initialize`.
    pub(super) handshake: bool,
}

impl ServerSession {
    /// Sends a request, and passes on all messages that arrive for it, the response last.
    ///
    /// # Errors
    ///
    /// Any [`HttpError`]; then there was no response.
    pub(super) async fn request(self: &Arc<Self>, request: &PendingRequest) -> Result<(), HttpError> {
        let response = if request.handshake {
            let (headers, response) = self.open(request).await?;
            // Before the client sees it, since its next message may follow at once.
            self.set_headers(headers);
            response
        } else {
            let post = self.post(request);
            let (response, headers) = self.send(|_| post.clone()).await?;
            self.read_response(response, request.number, &headers).await?
        };
        self.inbox.deliver(response);
        Ok(())
    }

    /// Opens a session with this `initialize`. Returns the headers of the session, which are empty
    /// if the server refuses it.
    pub(super) async fn open(&self, request: &PendingRequest) -> Result<(SessionHeaders, Envelope), HttpError> {
        let mut headers = SessionHeaders::default();
        let response = self.send_as(&self.post(request), &headers).await?;
        headers.session = response.headers().get(SESSION_ID).cloned();
        if let Some(id) = &mut headers.session {
            if id.len() > MAX_SESSION_ID {
                return Err(HttpError::NotMcp);
            }
            id.set_sensitive(true);
        }
        let answer = match self.read_response(response, request.number, &headers).await {
            Err(HttpError::Refused(status)) if may_mean_forgotten(status) && self.doubt_era().await => {
                return Err(HttpError::SessionLost(None));
            }
            read => read?,
        };
        let accepted = matches!(answer.kind(), MessageKind::Response { error: false, .. });
        let version = machine::result_version(answer.outcome()).filter(|_| accepted);
        let Some(version) = version else {
            if self.doubt_era().await {
                return Err(HttpError::SessionLost(None));
            }
            return Ok((SessionHeaders::default(), answer));
        };
        headers.version = HeaderValue::try_from(version).ok();
        Ok((headers, answer))
    }

    async fn doubt_era(&self) -> bool {
        self.user.doubt_era_by_handshake(ServerEra::Legacy).await
    }

    /// Sends a message without a response.
    pub(super) async fn notify(self: &Arc<Self>, message: Bytes) -> Result<(), HttpError> {
        let (response, _) = self.send(|_| UpstreamRequest::Post(message.clone(), None)).await?;
        let status = response.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(HttpError::Refused(status))
        }
    }

    fn post(&self, request: &PendingRequest) -> UpstreamRequest {
        let (inbox, number) = (self.inbox.clone(), request.number);
        let on_sent = move || inbox.shared.step(|machine| machine.mark_sent(inbox.number, number));
        UpstreamRequest::Post(request.line.clone(), Some(Arc::new(on_sent)))
    }

    async fn read_response(
        &self,
        response: reqwest::Response,
        number: u64,
        headers: &SessionHeaders,
    ) -> Result<Envelope, HttpError> {
        let status = response.status();
        if status.is_success() && has_media_type(&response, "text/event-stream") {
            return self.read_stream(response, number, headers).await;
        }
        if has_media_type(&response, "application/json") {
            let body = read_body(response, self.inbox.config.max_line).await?;
            if let Ok(message) = Envelope::parse(&body)
                && is_response_to(&message, number)
            {
                return Ok(message);
            }
        }
        Err(if status.is_success() {
            HttpError::NotMcp
        } else {
            HttpError::Refused(status)
        })
    }

    /// Reads the events of a stream up to the response. A stream that ends early is resumed in the
    /// session in which it began, even if that has been reopened.
    async fn read_stream(
        &self,
        response: reqwest::Response,
        number: u64,
        headers: &SessionHeaders,
    ) -> Result<Envelope, HttpError> {
        let limit = self.inbox.config.max_line;
        let mut events = SseReader::new(response, limit, StreamPosition::default());
        let mut resumptions = 0;
        let mut seen = None;
        loop {
            match events.next().await {
                Ok(Some(data)) => {
                    resumptions = 0;
                    match Envelope::parse(&data) {
                        Ok(message) if is_response_to(&message, number) => return Ok(message),
                        Ok(message) => self.inbox.deliver(message),
                        Err(error) => {
                            if self.inbox.receive_unreadable(&data, &error) == Some(number) {
                                return Err(HttpError::NotMcp);
                            }
                        }
                    }
                }
                Ok(None) | Err(HttpError::BrokenOff) => {
                    let position = events.position().clone();
                    if position.last_id != seen {
                        seen.clone_from(&position.last_id);
                        resumptions = 0;
                    }
                    resumptions += 1;
                    if position.last_id.is_none() || resumptions > MAX_RESUMPTIONS {
                        return Err(HttpError::BrokenOff);
                    }
                    sleep(position.retry).await;
                    let resume = UpstreamRequest::Listen(position.last_id.clone());
                    let response = self.send_as(&resume, headers).await?;
                    if !response.status().is_success() || !has_media_type(&response, "text/event-stream") {
                        return Err(HttpError::BrokenOff);
                    }
                    events = SseReader::new(response, limit, position);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// True for the response to the request of this number, also if its id has become a string, which
/// the conversation does not accept.
pub(super) fn is_response_to(message: &Envelope, number: u64) -> bool {
    let MessageKind::Response { id: Some(id), .. } = message.kind() else {
        return false;
    };
    let named = id.number().or_else(|| id.text()?.parse().ok());
    named == Some(number)
}
