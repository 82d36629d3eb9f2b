//! Why a bridge could not be made.
//!
//! Only [`Bridge::connect`](crate::Bridge::connect) fails: once connected, every trouble is an answer at some exchange.

/// Why a bridge over a fresh server cannot stand in for the one before it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server ended before it had answered. A later try with a fresh server may succeed.
    #[error("the server ended during the handshake")]
    Ended,
    /// The server did not answer in time. A later try may succeed.
    #[error("the server did not answer the handshake in time")]
    TimedOut,
    /// The server answered `initialize` with an error, though the same request was good once.
    #[error("the server refused the handshake with error {code}")]
    Refused {
        /// The JSON-RPC error code.
        code: i64,
    },
    /// The server answered `initialize` with something that is no `InitializeResult`.
    #[error("the server's answer to the handshake cannot be used")]
    Unusable,
    /// The server negotiated another version than the client knows of. Trying again does not help.
    #[error("the server negotiated {negotiated} where the client holds {held}")]
    VersionChanged {
        /// The version that the client was told.
        held: String,
        /// The version that the server now answers.
        negotiated: String,
    },
    /// The server lacks something that the client was told it has. Trying again does not help.
    #[error("the server does not have the capability {capability} any more")]
    CapabilityMissing {
        /// The capability, with dots between its levels.
        capability: String,
    },
}

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The bytes are not what [`Snapshot::to_bytes`](crate::Snapshot::to_bytes) makes.
    #[error("the snapshot cannot be read")]
    Malformed(#[source] serde_json::Error),
    /// The snapshot is of a form that this version does not know.
    #[error("the snapshot has the unknown form {0}")]
    UnknownForm(u32),
}
