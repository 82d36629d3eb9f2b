//! The messages on a stream, and the results of routing and reading them.

use bytes::Bytes;

use super::event_id::EventId;
use crate::jsonrpc::RequestKey;

/// A message for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StreamMessage {
    Notification {
        line: Bytes,
        scope: NotificationScope,
    },
    ServerRequest {
        key: RequestKey,
        line: Bytes,
    },
    /// The response to a request of the stream.
    Response(Bytes),
}

/// The subject of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotificationScope {
    /// The request of its stream; the notification is meaningless on another stream.
    Request,
    /// The progress of an unknown request. While it waits for a stream, a newer one replaces it.
    Progress(RequestKey),
    /// Anything else.
    Session,
}

/// One event of a stream.
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

impl StreamMessage {
    pub(super) fn line(&self) -> &Bytes {
        match self {
            Self::Notification { line, .. } | Self::ServerRequest { line, .. } | Self::Response(line) => line,
        }
    }

    pub(super) fn is_server_request(&self, wanted: &RequestKey) -> bool {
        matches!(self, Self::ServerRequest { key, .. } if key == wanted)
    }

    pub(super) fn is_progress(&self, wanted: &RequestKey) -> bool {
        matches!(self, Self::Notification { scope: NotificationScope::Progress(key), .. } if key == wanted)
    }

    /// True if the message is meaningless on another stream.
    pub(super) fn belongs_to_stream(&self) -> bool {
        matches!(
            self,
            Self::Response(_)
                | Self::Notification {
                    scope: NotificationScope::Request,
                    ..
                }
        )
    }
}
