//! Errors of a bridge: why it cannot connect, read a snapshot, or accept a client message.
//!
//! Only [`Bridge::connect`](crate::Bridge::connect) fails. Once connected, every error is an answer
//! to some exchange; `exchange::response` maps a [`RejectReason`] to HTTP. A request that was
//! accepted and fails later gets a JSON-RPC error instead.

use crate::jsonrpc::MessageError;

/// Why a fresh server cannot replace the one before it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server ended before it answered. A retry with a fresh server may succeed.
    #[error("the server ended during the handshake")]
    Ended,
    /// The server did not answer in time. A retry may succeed.
    #[error("the server did not answer the handshake in time")]
    TimedOut,
    /// The server answered `initialize` with an error, although the same request succeeded before.
    #[error("the server rejected the handshake with error {code}")]
    Refused {
        /// The JSON-RPC error code.
        code: i64,
    },
    /// The server's answer to `initialize` is not an `InitializeResult`.
    #[error("the server's answer to the handshake is invalid")]
    Unusable,
    /// The server negotiated another version than the client has. A retry does not help.
    #[error("the server negotiated version {negotiated}, but the client has version {held}")]
    VersionChanged {
        /// The version that the client has.
        held: String,
        /// The version that the server negotiates now.
        negotiated: String,
    },
    /// The server lacks a capability that the client was promised. A retry does not help.
    #[error("the server no longer has the capability {capability}")]
    CapabilityMissing {
        /// The capability, with dots between its levels.
        capability: String,
    },
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes do not come from [`Snapshot::to_bytes`](crate::Snapshot::to_bytes).
    #[error("the snapshot cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// This version does not know the format of the snapshot.
    #[error("the snapshot has the unknown format {0}")]
    UnknownFormat(u32),
}

/// Why the bridge does not accept a client message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RejectReason {
    /// The endpoint does not serve this HTTP method.
    MethodNotAllowed,
    /// The body is not a message.
    InvalidMessage(MessageError),
    /// The `MCP-Protocol-Version` header names a version that is not supported.
    UnsupportedVersion(String),
    /// A request with this id is in flight.
    IdInFlight,
    /// A batch contains an `initialize`.
    InitializeInBatch,
    /// The parameters of an `initialize` are too large to keep for the life of a session.
    InitializeTooLarge,
    /// Another `initialize` is in flight.
    Initializing,
    /// Too many exchanges are open.
    TooManyRequests,
    /// The server does not read, and the outbox is full.
    ServerNotReading,
    /// The server has ended.
    ServerEnded,
}
