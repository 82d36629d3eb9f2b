//! How a child ended.

use std::fmt;
use std::time::Duration;

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did. Without code and signal the status is unknown.
    pub signal: Option<i32>,
    /// From its start until it ended.
    pub lived: Duration,
    /// Whether it was asked to end, by whichever way, before it did.
    pub requested: bool,
}

impl Exit {
    pub(crate) fn unknown(lived: Duration) -> Self {
        Self {
            code: None,
            signal: None,
            lived,
            requested: false,
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
