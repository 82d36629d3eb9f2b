//! Log lines on standard error, for people or as JSON. Nothing else is written there.

use std::io;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogConfig, LogFormat};

/// Sets the process's log up. A second call changes nothing.
pub fn start(log: &LogConfig) {
    // The filter was checked with the configuration.
    let filter = EnvFilter::try_new(&log.filter).unwrap_or_default();
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr);
    let set = match log.format {
        LogFormat::Pretty => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        // The list of spans holds the innermost one too: once is enough.
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if set.is_err() {
        tracing::debug!("the log was set up before");
    }
}
