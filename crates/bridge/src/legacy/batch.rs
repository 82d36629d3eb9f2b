//! Batches: several messages in one JSON array, as MCP 2025-03-26 had them and no other revision.
//!
//! A batch is taken as a whole or refused as a whole. Its requests share one stream, which ends with the last of their answers. It is
//! not passed on as a batch: the server reads its messages one by one, which every server can.

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::Legacy;
use crate::{
    envelope::{Envelope, Kind, Malformed},
    event_id::Asked,
    id::Id,
    refusal::Refusal,
    streams::Reader,
};

/// The revision that has batches.
const REVISION: &str = "2025-03-26";

/// The messages of a batch.
///
/// # Errors
///
/// [`Malformed::NotJsonRpc`] when one of them is none, or there is none; the other variants as for a single message.
pub(crate) fn split(bytes: &[u8]) -> Result<Vec<Envelope>, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
    let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Malformed::NotJson)?;
    if parts.is_empty() {
        return Err(Malformed::NotJsonRpc(None));
    }
    let messages = parts.into_iter().map(|part| Envelope::parse(part.get().as_bytes()));
    // Nothing in a batch is answered for itself when the whole is refused, so no id is told either.
    messages
        .collect::<Result<_, _>>()
        .map_err(|_| Malformed::NotJsonRpc(None))
}

impl Legacy {
    /// Whether the session has negotiated the revision with batches.
    pub(crate) fn has_batches(&self) -> bool {
        self.version() == Some(REVISION)
    }

    /// Takes a batch. Its answers will be on the stream; there is none if there are no requests in it.
    ///
    /// # Errors
    ///
    /// [`Refusal::Malformed`] where the session has no batches, [`Refusal::InitializeInBatch`], and what its messages are refused for.
    pub(crate) fn batch(&mut self, now: Instant, messages: Vec<Envelope>) -> Result<Option<Reader>, Refusal> {
        if !self.has_batches() {
            return Err(Refusal::Malformed(Malformed::Batch));
        }
        let ids = self.check_batch(&messages)?;
        if ids.is_empty() {
            let mut taken = Ok(());
            for message in messages {
                let this = self.tell(now, message);
                taken = taken.and(this);
            }
            return taken.map(|()| None);
        }
        let (reader, adopted) = self.streams.open_exchange(Asked::new(&ids), ids.len());
        for message in messages {
            if let Kind::Request { id, method } = message.kind().clone() {
                self.forward(now, &message, id, &method, reader.stream);
            } else if self.tell(now, message).is_err() {
                // Its requests are answered, with the reason; there is nobody else to tell.
                tracing::debug!("a message in a batch was not taken");
            }
        }
        self.adopted(now, &adopted);
        Ok(Some(reader))
    }

    /// Takes a batch of the server. `false` where the session has none.
    pub(crate) fn take_batch(&mut self, now: Instant, messages: Vec<Envelope>) -> bool {
        if !self.has_batches() {
            return false;
        }
        for message in messages {
            self.take(now, message);
        }
        true
    }

    fn tell(&mut self, now: Instant, message: Envelope) -> Result<(), Refusal> {
        match message.kind().clone() {
            Kind::Notification { method } => self.notify(now, message, &method),
            Kind::Response { id, .. } => self.respond(&message, id.as_ref()),
            Kind::Request { .. } => Ok(()),
        }
    }

    /// The ids of the requests in a batch, if all of them can be taken.
    fn check_batch(&self, messages: &[Envelope]) -> Result<Vec<Id>, Refusal> {
        let mut ids: Vec<Id> = Vec::new();
        let mut keys = std::collections::HashSet::new();
        for message in messages {
            let Kind::Request { id, method } = message.kind() else {
                continue;
            };
            // MCP 2025-03-26, "Initialization".
            if &**method == "initialize" {
                return Err(Refusal::InitializeInBatch);
            }
            if self.table.contains(id.key()) || !keys.insert(id.key().clone()) {
                return Err(Refusal::IdInFlight);
            }
            ids.push(id.clone());
        }
        self.check_room(ids.len())?;
        Ok(ids)
    }
}
