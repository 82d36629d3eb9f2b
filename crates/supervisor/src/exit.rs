//! The exit of a child.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

/// The exit of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if any. Without code and signal the status is unknown.
    pub signal: Option<i32>,
    /// The time from its start to its end.
    pub lived: Duration,
    /// True if a stop was requested, in any way, before it ended.
    pub requested: bool,
}

impl Exit {
    pub(crate) fn new(status: Option<ExitStatus>, lived: Duration, requested: bool) -> Self {
        Self {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            lived,
            requested,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exited with code {code}"),
            (None, Some(signal)) => write!(f, "ended by signal {signal}"),
            (None, None) => f.write_str("ended with unknown status"),
        }
    }
}
