//! Why a message of a client is not taken.
//!
//! These are conditions; what HTTP says to them is in `respond`. A request that was taken and then fails is
//! none of them: it gets a JSON-RPC error as its answer.

use crate::envelope::Malformed;

/// Why a message of a client is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The HTTP method has no meaning here.
    Method,
    /// The body is no message.
    Malformed(Malformed),
    /// The `MCP-Protocol-Version` header names a version that is not served.
    Version(String),
    /// A request with this id is in flight.
    IdInFlight,
    /// An `initialize` is in a batch.
    InitializeInBatch,
    /// The parameters of an `initialize` are too large to be kept for the life of a session.
    HandshakeTooLarge,
    /// Another `initialize` is under way.
    Initializing,
    /// Too many exchanges are open.
    Busy,
    /// The server does not read, and no more can wait for it.
    Stalled,
    /// The server has ended.
    Ended,
}
