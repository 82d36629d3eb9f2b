//! The messages of one server on their way to the state machine.

use std::sync::Arc;

use tokio::time::Instant;

use super::{framing::LineExcerpt, unreadable_line};
use crate::{
    config::Config,
    dropped::DropReason,
    jsonrpc::{Envelope, MessageError},
    machine,
    shared::Shared,
    tables::links::LinkNumber,
};

/// Accepts the messages of the server of a link.
#[derive(Clone, Debug)]
pub(crate) struct Inbox {
    pub(crate) number: LinkNumber,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
}

impl Inbox {
    /// Accepts a line. One that cannot be read is dropped, and the call that it seems to answer
    /// gets an error.
    pub(crate) fn receive(&self, line: &[u8]) {
        if line.trim_ascii().is_empty() {
            return;
        }
        match Envelope::parse(line) {
            Ok(message) => self.deliver(message),
            Err(error) => _ = self.receive_unreadable(line, &error),
        }
    }

    /// Accepts a message.
    pub(crate) fn deliver(&self, message: Envelope) {
        self.shared
            .step(|machine| machine.receive(Instant::now(), self.number, message));
    }

    /// Accepts what is not one message: a batch, or a line that is dropped. Returns the call that
    /// such a line seems to answer.
    pub(crate) fn receive_unreadable(&self, line: &[u8], error: &MessageError) -> Option<u64> {
        let reason = match error {
            MessageError::Batch => {
                let batch = machine::split_batch(line);
                if batch.is_ok_and(|messages| {
                    self.shared
                        .step(|machine| machine.receive_batch(Instant::now(), self.number, messages))
                }) {
                    return None;
                }
                DropReason::InvalidMessage
            }
            MessageError::NotUtf8 | MessageError::NotJson => DropReason::InvalidJson,
            MessageError::NotJsonRpc(_) => DropReason::InvalidMessage,
        };
        self.config.drop_counts.count(reason);
        let call = unreadable_line::answered_call(line);
        self.fail_answered(call, "the response of the MCP server is invalid");
        call
    }

    /// Drops a line that is too long.
    pub(crate) fn line_too_long(&self, excerpt: &LineExcerpt) {
        self.config.drop_counts.count(DropReason::LineTooLong);
        self.fail_answered(
            unreadable_line::answered_call_of_excerpt(excerpt),
            "the response of the MCP server is too long",
        );
    }

    /// The client that waits for a line that cannot be read gets an error.
    fn fail_answered(&self, call: Option<u64>, why: &str) {
        if let Some(call) = call {
            self.shared
                .step(|machine| machine.invalid_response(Instant::now(), self.number, call, why));
        }
    }
}
