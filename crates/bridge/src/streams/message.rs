//! The messages on a stream, and the results of routing and reading them.

use bytes::Bytes;

use super::event_id::EventId;
use crate::jsonrpc::RequestKey;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamMessage {
    pub(crate) kind: StreamMessageKind,
    /// The message, on one line.
    pub(crate) line: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamMessageKind {
    /// The response to a request of the stream.
    Response,
    /// A notification about the request of the stream, meaningless on another stream.
    RequestNotification,
    /// The progress of an unknown request. While it waits for a stream, a newer one replaces it.
    Progress(RequestKey),
    /// Any other notification.
    Notification,
    ServerRequest(RequestKey),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    pub(crate) id: EventId,
    /// The message, on one line.
    pub(crate) line: Bytes,
    /// The stream ends with this event.
    pub(crate) last: bool,
}

/// The form of the answer to a POST.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ResponseMode {
    /// With these responses as JSON. The stream is over.
    Json(Vec<Bytes>),
    /// With an event stream.
    Sse,
}

/// The result of routing a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// On a stream.
    Placed,
    /// Among the messages that wait for a stream.
    Waiting,
    /// Nowhere: there is no room.
    Rejected,
}

impl StreamMessageKind {
    pub(super) fn is_notification(&self) -> bool {
        matches!(self, Self::RequestNotification | Self::Progress(_) | Self::Notification)
    }

    /// True if the message is meaningless on another stream.
    pub(super) fn belongs_to_stream(&self) -> bool {
        matches!(self, Self::Response | Self::RequestNotification)
    }
}
