//! Counts the messages that a conversation drops instead of failing an exchange or the connection.
//!
//! Each reason is logged when its count reaches a power of two, so that a faulty server cannot
//! flood the log. Contents are never logged.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Why a message was dropped, or replaced by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A line of the server is not JSON, not UTF-8, or cut off by the end of the stream.
    InvalidJson,
    /// A line of the server is JSON but not a JSON-RPC 2.0 message.
    InvalidMessage,
    /// A line of the server is longer than [`Config::max_line`](crate::Config::max_line).
    LineTooLong,
    /// A response of the server matches no request in flight.
    UnmatchedResponse,
    /// A progress notification of the server matches no request in flight.
    UnmatchedProgress,
    /// A message of a server about subscriptions matches none.
    UnmatchedSubscription,
    /// A cancellation, a response or a progress notification of a client matches no open request,
    /// or no server is there for another notification.
    UnmatchedClientMessage,
    /// A response arrived after its client had left without an event id to resume with.
    ClientGone,
    /// A response exceeds [`Config::max_unflushed`](crate::Config::max_unflushed).
    ClientNotReading,
    /// A client resumed a stream whose response is no longer in the replay buffer.
    NotReplayable,
    /// A notification of the server exceeds [`Config::backlog`](crate::Config::backlog).
    BacklogFull,
    /// A request of the server repeats an open id, found no room, or found no client in time.
    ServerRequestRejected,
    /// A client setting does not carry over to the next server: it exceeds the limits, or the next
    /// server rejected it.
    SettingLost,
    /// A message of the conversation itself found no room because the server does not read.
    ServerNotReading,
}

/// The counts by reason. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct DropCounts(Arc<[AtomicU64; DropReason::LABELS.len()]>);

impl DropReason {
    /// All reasons, each with the value of its metrics label.
    pub const LABELS: [(Self, &'static str); 14] = [
        (Self::InvalidJson, "invalid_json"),
        (Self::InvalidMessage, "invalid_message"),
        (Self::LineTooLong, "line_too_long"),
        (Self::UnmatchedResponse, "unmatched_response"),
        (Self::UnmatchedProgress, "unmatched_progress"),
        (Self::UnmatchedSubscription, "unmatched_subscription"),
        (Self::UnmatchedClientMessage, "unmatched_client_message"),
        (Self::ClientGone, "client_gone"),
        (Self::ClientNotReading, "client_not_reading"),
        (Self::NotReplayable, "not_replayable"),
        (Self::BacklogFull, "backlog_full"),
        (Self::ServerRequestRejected, "server_request_rejected"),
        (Self::SettingLost, "setting_lost"),
        (Self::ServerNotReading, "server_not_reading"),
    ];
}

impl DropCounts {
    /// The number of messages dropped for this reason.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, reason: DropReason) {
        let count = self.0[reason as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(fault = ?reason, count, "message dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let counts = DropCounts::default();
        counts.count(DropReason::InvalidJson);
        counts.clone().count(DropReason::InvalidJson);
        counts.count(DropReason::ServerNotReading);
        assert_eq!(
            DropReason::LABELS.map(|(reason, _)| counts.get(reason)),
            [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
        );
    }
}
