//! The messages on a stream, and the results of routing and reading them.

use bytes::Bytes;

use super::{StreamId, event_id::EventId};
use crate::{error::Refusal, tables::links::LinkNumber};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamMessage {
    pub(crate) kind: StreamMessageKind,
    /// The link of the server that has written it; 0 for a message of the conversation itself.
    pub(crate) link: LinkNumber,
    /// The message, on one line.
    pub(crate) line: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamMessageKind {
    /// The response to a request of the stream.
    Response,
    /// A notification about the request of the stream, meaningless on another stream.
    RequestNotification,
    /// Any other notification.
    Notification,
    /// A request of a server, by its number.
    Question(u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StreamEvent {
    /// `None` on a stream that cannot be resumed.
    pub(crate) id: Option<EventId>,
    /// The message, on one line.
    pub(crate) line: Bytes,
    /// The stream ends with this event.
    pub(crate) last: bool,
}

/// The form of the answer to a POST.
#[derive(Debug)]
pub(crate) enum ResponseMode {
    /// With these responses as JSON. The stream is over.
    Json(Vec<Bytes>),
    /// With an event stream.
    Sse,
    /// With the error of the owner: no server could be had. The stream is over.
    Unserved(Refusal),
}

/// The result of routing a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Routed {
    /// On this stream.
    Placed(StreamId),
    /// Among the messages that wait for a stream.
    Waiting,
    /// Nowhere: there is no room.
    Rejected,
}

impl StreamMessageKind {
    pub(super) fn is_notification(&self) -> bool {
        matches!(self, Self::RequestNotification | Self::Notification)
    }

    /// True if the message is meaningless on another stream.
    pub(super) fn belongs_to_stream(&self) -> bool {
        matches!(self, Self::Response | Self::RequestNotification)
    }
}
