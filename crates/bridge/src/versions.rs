//! The protocol versions up to 2025-11-25. They are dates, so they compare by their age.

/// The newest version with a handshake.
pub(crate) const LATEST: &str = "2025-11-25";
/// The versions of Streamable HTTP.
pub(crate) const SUPPORTED: [&str; 3] = ["2025-03-26", "2025-06-18", LATEST];
/// All versions, which a server may speak whatever its transport.
pub(crate) const WITH_HANDSHAKE: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", LATEST];
