//! Times as seconds since 1970.

use std::time::{SystemTime, UNIX_EPOCH};

/// The seconds from 1970 to a time; zero for a time before.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
