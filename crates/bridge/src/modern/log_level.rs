//! The severities of log messages (RFC 5424, as `LoggingLevel` of the protocol names them).

use crate::jsonrpc::json;

/// A severity; a greater one is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LogLevel(usize);

const NAMES: [&str; 8] = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

impl LogLevel {
    /// Reads a level (JSON text).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = json::string(text)?;
        NAMES.iter().position(|known| *known == name).map(Self)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[self.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_by_severity() {
        let level = |name| LogLevel::parse(&json::quote(name));
        assert!(level("debug") < level("info") && level("error") < level("emergency"));
        assert_eq!(level("warning").map(LogLevel::name), Some("warning"));
        assert_eq!((level("trace"), LogLevel::parse("3")), (None, None));
    }
}
