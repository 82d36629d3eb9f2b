//! Errors of a conversation: why a link cannot connect, a snapshot cannot be read, or a client
//! message is not accepted.
//!
//! Only [`Conversation::connect`](crate::Conversation::connect) fails. Every other error is an
//! answer to some exchange; `exchange::response` maps a [`RejectReason`] to HTTP. A request that
//! was accepted and fails later gets a JSON-RPC error instead.

use std::{error::Error, sync::Arc};

use crate::jsonrpc::MessageError;

/// Why the owner of a conversation has no server for its calls. Its text is for the client.
pub type Refusal = Arc<dyn Error + Send + Sync>;

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

impl ConnectError {
    /// True if another server of the same kind will not fit either.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Ended | Self::TimedOut => false,
            Self::Refused { .. } | Self::Unusable | Self::VersionChanged { .. } | Self::CapabilityMissing { .. } => {
                true
            }
        }
    }
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

/// Why a client message is not accepted. The texts are for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RejectReason {
    #[error("this endpoint accepts GET, POST and DELETE")]
    MethodNotAllowed,
    #[error(transparent)]
    InvalidMessage(#[from] MessageError),
    #[error("unsupported protocol version")]
    UnsupportedVersion(String),
    #[error("a request with this id is in flight")]
    IdInFlight,
    #[error("initialize cannot be part of a batch")]
    InitializeInBatch,
    /// A conversation stores the parameters of `initialize` for the life of a session.
    #[error("the parameters of initialize are larger than 64 KiB")]
    InitializeTooLarge,
    #[error("the session is being initialized")]
    Initializing,
    #[error("too many requests of this session are in flight")]
    TooManyRequests,
    #[error("the MCP server of this session does not read its input")]
    ServerNotReading,
    /// A request was in flight.
    #[error("the MCP server of this session has ended; it is not known whether it has carried out the request")]
    ServerEnded,
    #[error("the stream is complete")]
    StreamComplete,
}
