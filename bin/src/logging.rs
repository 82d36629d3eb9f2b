//! Log lines on standard error, for people or as JSON, each of limited length.

mod limited_line;

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use self::limited_line::LimitedLines;
use crate::config::{LogConfig, LogFormat};

/// Sets up the log of the process. A second call has no effect.
pub(crate) fn init(log: &LogConfig) {
    // The configuration checks the filter.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let lines = fmt().with_env_filter(filter).with_writer(|| LimitedLines(io::stderr()));
    let set = match log.format {
        LogFormat::Pretty => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        // The list of spans contains the innermost one too.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if set.is_err() {
        tracing::debug!("the log is set up already");
    }
}
