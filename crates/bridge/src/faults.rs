//! What went wrong without anybody having to fail for it, counted.
//!
//! A server that writes garbage must not be able to flood the log: each kind of fault is logged when it comes for the
//! first time and then each time its count has doubled. Contents are never logged.

use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of fault that a bridge counts and survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A line of the server was not JSON, or not UTF-8.
    NotJson,
    /// A line of the server was JSON but not a JSON-RPC 2.0 message.
    NotJsonRpc,
    /// A line of the server was longer than the limit.
    LineTooLong,
    /// The stream ended within a line.
    LineCutOff,
    /// The server answered a request that is not in flight: never made, or answered already.
    UnknownAnswer,
    /// The server's answer found its client gone, without a way to come back for it.
    AnswerAbandoned,
    /// The server made a request under an id that an open request of its own has.
    AskRepeated,
    /// A request of the server found no room or no listener and was answered with an error.
    AskRefused,
    /// A notification of the server was dropped because nobody read fast enough.
    NotificationDropped,
    /// The client cancelled a request that is not in flight.
    UnknownCancel,
    /// The client answered a request that the server has not made, or that was answered already.
    UnknownResponse,
    /// An answer was replaced by an error, because too much waits for the client to read.
    AnswerRefused,
    /// A client came back for an answer that is not kept any more.
    AnswerLost,
    /// A subscription was not recorded, because there were too many or its URI was too long.
    RecordFull,
    /// A fresh server did not accept a log level or a subscription of the one before it.
    ReplayRefused,
    /// A message of the bridge's own found no room: the server does not read.
    OutputDropped,
}

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    counts: [AtomicU64; Fault::OutputDropped as usize + 1],
}

impl Faults {
    /// Counts a fault, and logs it when its count is a power of two.
    pub(crate) fn count(&self, fault: Fault) {
        let count = self.counts[fault as usize].fetch_add(1, Ordering::Relaxed) + 1;
        if count.is_power_of_two() {
            tracing::warn!(?fault, count, "a fault of the server or the client was passed over");
        }
    }

    /// How often a fault has come.
    pub(crate) fn total(&self, fault: Fault) -> u64 {
        self.counts[fault as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind() {
        let faults = Faults::default();
        faults.count(Fault::NotJson);
        faults.count(Fault::NotJson);
        faults.count(Fault::OutputDropped);
        assert_eq!(faults.total(Fault::NotJson), 2);
        assert_eq!(faults.total(Fault::OutputDropped), 1);
        assert_eq!(faults.total(Fault::LineTooLong), 0);
    }
}
