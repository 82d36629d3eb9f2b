//! Steps of links over HTTP, which send each message by itself, and to which a server may say that
//! it has forgotten the session.

use bytes::Bytes;
use tokio::time::Instant;

use super::StateMachine;
use crate::{
    error::ConnectError,
    jsonrpc::{Envelope, MessageKind},
    tables::links::LinkNumber,
};

/// A message for the server of a link.
#[derive(Debug)]
pub(crate) struct OutgoingMessage {
    pub(crate) line: Bytes,
    pub(crate) kind: OutgoingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutgoingKind {
    /// A request with this id.
    Request { number: u64, handshake: bool },
    /// The request with this id is cancelled.
    Cancelled(u64),
    /// The handshake is complete.
    Initialized,
    /// Any other notification, or a response to a request of the server.
    NotificationOrResponse,
}

impl StateMachine {
    /// The next message for the server of a link. A call in it counts as unread until
    /// [`mark_sent`](Self::mark_sent).
    pub(crate) fn take_message(&mut self, link: LinkNumber) -> Option<OutgoingMessage> {
        let (line, call) = self.links.get_mut(link)?.outbox.take_line()?;
        let kind = match call {
            Some(number) => {
                if let Some(call) = self.calls.on_link(link, number) {
                    call.unsent = true;
                }
                let handshake = self.handshake.is_pending(number);
                OutgoingKind::Request { number, handshake }
            }
            None => OutgoingKind::of(&line),
        };
        Some(OutgoingMessage { line, kind })
    }

    /// Notes that the request of this number goes to the server.
    pub(crate) fn mark_sent(&mut self, link: LinkNumber, number: u64) {
        if let Some(call) = self.calls.on_link(link, number) {
            call.unsent = false;
            self.mark_call_written(number);
        }
    }

    /// Notes that the server has not acted on a call, which was this line. The call waits for
    /// another link when this one ends.
    pub(crate) fn mark_unread(&mut self, link: LinkNumber, number: u64, line: Bytes) {
        if self.calls.on_link(link, number).is_some() {
            self.calls.keep_line(number, line);
        }
    }

    /// Ends a request of a link with an error. Nothing happens if it has ended.
    pub(crate) fn fail_request(&mut self, now: Instant, link: LinkNumber, number: u64, why: &str) {
        self.fail_on_link(now, link, number, why);
        self.note_stream_changes();
    }

    /// A number for a request of a link itself.
    pub(crate) fn next_request(&mut self) -> u64 {
        self.calls.next_number()
    }

    /// The recorded `initialize`, for a server that has forgotten the session, and its number.
    pub(crate) fn repeated_initialize(&mut self) -> Option<(u64, Bytes)> {
        let number = self.calls.next_number();
        Some((number, self.handshake.initialize(number)?))
    }

    /// Checks the answer to the repeated `initialize`. True if the server needs the client's
    /// confirmation.
    ///
    /// # Errors
    ///
    /// Those of [`Conversation::connect_http`](crate::Conversation::connect_http) about the server.
    pub(crate) fn check_repeated(&mut self, answer: &Envelope) -> Result<bool, ConnectError> {
        let error = matches!(answer.kind(), MessageKind::Response { error: true, .. });
        if self.handshake.check_replay(error, answer.outcome())? {
            self.note_change();
        }
        Ok(self.handshake.is_confirmed())
    }

    /// True if messages of the servers that belong to no request are for the client.
    pub(crate) fn expects_messages(&self) -> bool {
        self.streams.count_listeners() > 0 || !self.handshake.settings().subscriptions.is_empty()
    }
}

impl OutgoingKind {
    pub(crate) fn of(line: &[u8]) -> Self {
        let Ok(message) = Envelope::parse(line) else {
            return Self::NotificationOrResponse;
        };
        match message.kind() {
            MessageKind::Request { id, method } => id.number().map_or(Self::NotificationOrResponse, |number| {
                let handshake = &**method == "initialize";
                Self::Request { number, handshake }
            }),
            MessageKind::Notification { method } if &**method == "notifications/initialized" => Self::Initialized,
            MessageKind::Notification { method } if &**method == "notifications/cancelled" => {
                let request = message.param_id("requestId").and_then(|id| id.number());
                request.map_or(Self::NotificationOrResponse, Self::Cancelled)
            }
            MessageKind::Notification { .. } | MessageKind::Response { .. } => Self::NotificationOrResponse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_distinguished_by_kind() {
        let request = |handshake| OutgoingKind::Request { number: 7, handshake };
        for (text, expected) in [
            (r#"{"jsonrpc":"2.0","id":7,"method":"initialize"}"#, request(true)),
            (r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#, request(false)),
            (
                r#"{"jsonrpc":"2.0","id":"7","result":{}}"#,
                OutgoingKind::NotificationOrResponse,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
                OutgoingKind::Initialized,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#,
                OutgoingKind::NotificationOrResponse,
            ),
            (
                r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7,"reason":"x"}}"#,
                OutgoingKind::Cancelled(7),
            ),
        ] {
            assert_eq!(OutgoingKind::of(text.as_bytes()), expected, "{text}");
        }
    }
}
