//! Batches: several messages in one JSON array, which only MCP 2025-03-26 has.
//!
//! A batch is accepted or rejected as a whole. Its requests share one stream, which ends with their
//! last response. The server gets the messages one by one, which every server supports.

use std::collections::HashSet;

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{StateMachine, content_hash};
use crate::{
    error::RejectReason,
    jsonrpc::{Envelope, Id, MessageError, MessageKind},
    streams::{Reader, RequestIds},
    tables::{calls::Call, links::LinkNumber},
};

/// The revision that has batches.
const BATCH_REVISION: &str = "2025-03-26";

/// Splits a batch into its messages.
///
/// # Errors
///
/// [`MessageError::NotJsonRpc`] when the batch is empty or one of its messages is invalid; the
/// other variants as for a single message.
pub(crate) fn split_batch(bytes: &[u8]) -> Result<Vec<Envelope>, MessageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| MessageError::NotUtf8)?;
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| MessageError::NotJson)?;
    if parts.is_empty() {
        return Err(MessageError::NotJsonRpc(None));
    }
    let messages = parts.into_iter().map(|part| Envelope::parse(part.get().as_bytes()));
    // A rejected batch gets one answer for all its messages, so the error carries no id.
    messages
        .collect::<Result<_, _>>()
        .map_err(|_| MessageError::NotJsonRpc(None))
}

impl StateMachine {
    /// True if the session has negotiated the revision with batches.
    pub(crate) fn has_batches(&self) -> bool {
        self.handshake.version() == Some(BATCH_REVISION)
    }

    /// Accepts a batch of a client. Its responses will be on the stream; a batch without requests
    /// has none.
    ///
    /// # Errors
    ///
    /// [`RejectReason::InvalidMessage`] in a session without batches,
    /// [`RejectReason::InitializeInBatch`], and the errors of its single messages.
    pub(crate) fn batch(&mut self, now: Instant, messages: Vec<Envelope>) -> Result<Option<Reader>, RejectReason> {
        if !self.has_batches() {
            return Err(RejectReason::InvalidMessage(MessageError::Batch));
        }
        let ids = self.check_batch(&messages)?;
        if ids.is_empty() {
            let mut accepted = Ok(());
            for message in messages {
                let this = self.accept_without_response(now, message);
                accepted = accepted.and(this);
            }
            return accepted.map(|()| None);
        }
        self.prove_initialized();
        let reader = self.streams.open_exchange(RequestIds::new(&ids), ids.len());
        for message in messages {
            if let MessageKind::Request { id, method } = message.kind().clone() {
                let content = content_hash(&message, &method);
                self.begin(now, &message, Call::new(id, &method, content, reader.stream));
            } else if self.accept_without_response(now, message).is_err() {
                // The responses to the requests of the batch carry the reason.
                tracing::debug!("message in a batch rejected");
            }
        }
        Ok(Some(reader))
    }

    /// Handles a batch of the server of a link. `false` in a session without batches.
    pub(crate) fn receive_batch(&mut self, now: Instant, link: LinkNumber, messages: Vec<Envelope>) -> bool {
        if !self.has_batches() {
            return false;
        }
        for message in messages {
            self.receive(now, link, message);
        }
        true
    }

    fn accept_without_response(&mut self, now: Instant, message: Envelope) -> Result<(), RejectReason> {
        match message.kind().clone() {
            MessageKind::Notification { method } => self.notify(now, message, &method, true),
            MessageKind::Response { id, .. } => self.respond(&message, id.as_ref()),
            MessageKind::Request { .. } => Ok(()),
        }
    }

    /// Checks that all requests of a batch are acceptable, and returns their ids.
    fn check_batch(&self, messages: &[Envelope]) -> Result<Vec<Id>, RejectReason> {
        let mut ids: Vec<Id> = Vec::new();
        let mut keys = HashSet::new();
        for message in messages {
            let MessageKind::Request { id, method } = message.kind() else {
                continue;
            };
            // MCP 2025-03-26, "Initialization".
            if &**method == "initialize" {
                return Err(RejectReason::InitializeInBatch);
            }
            if self.calls.by_key(id.key()).is_some() || !keys.insert(id.key().clone()) {
                return Err(RejectReason::IdInFlight);
            }
            ids.push(id.clone());
        }
        self.check_room(ids.len())?;
        Ok(ids)
    }
}
