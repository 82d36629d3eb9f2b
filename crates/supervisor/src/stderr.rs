//! Forwarding a child's standard error to the log.
//!
//! The pump reads as fast as the child writes and waits for nothing else, so a child is never
//! blocked by its output. It splits the bytes into lines without control characters and of limited
//! length ([`line_splitter`]). A line that the child's [`rate_limiter`] allows goes to the log
//! under the target `child`, without the secrets of the spec ([`redact`]). The last lines are kept
//! for error reports even if they were not logged. So a flood costs only the processor time of
//! reading it.

mod line_splitter;
mod rate_limiter;
mod redact;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

pub(crate) use redact::Redactor;

use line_splitter::{Line, LineSplitter};
use rate_limiter::LineRateLimiter;

/// Number of last lines to keep.
const TAIL_LINES: usize = 20;

/// Maximum size of one read, in bytes.
const READ_SIZE: usize = 8 * 1024;

/// The last lines that a child wrote.
#[derive(Clone)]
pub(crate) struct StderrTail {
    redactor: Arc<Redactor>,
    /// At most [`TAIL_LINES`] lines, oldest first, not redacted: only the few lines of a flood that
    /// are read later are worth the search for secrets. Locked only to push or to copy.
    lines: Arc<Mutex<VecDeque<Line>>>,
}

/// Limits of the log of one child.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    /// In bytes.
    pub(crate) line: usize,
    pub(crate) lines_per_second: u32,
}

impl StderrTail {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self {
            redactor: Arc::new(redactor),
            lines: Arc::default(),
        }
    }

    /// The lines, oldest first, redacted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.iter().map(|line| self.redactor.text(line)).collect()
    }

    fn push(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Shows no lines, which may contain secrets.
impl fmt::Debug for StderrTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StderrTail").finish_non_exhaustive()
    }
}

/// Reads `stderr` to its end, logs within `limits`, and keeps the last lines in `tail`.
pub(crate) async fn pump(mut stderr: impl AsyncRead + Unpin, limits: LogLimits, tag: &str, tail: &StderrTail) {
    let mut lines = LineSplitter::new(limits.line);
    let mut limiter = LineRateLimiter::new(limits.lines_per_second, Instant::now());
    let mut buffer = vec![0; READ_SIZE];
    loop {
        let read = match stderr.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(tag, %error, "cannot read the standard error of the child");
                break;
            }
        };
        let now = Instant::now();
        lines.push(&buffer[..read], |line| {
            log_and_keep(line, limiter.allows(now), tag, tail);
        });
        report_suppressed(&mut limiter, now, false, tag);
    }
    let now = Instant::now();
    if let Some(line) = lines.finish() {
        log_and_keep(line, limiter.allows(now), tag, tail);
    }
    report_suppressed(&mut limiter, now, true, tag);
}

fn log_and_keep(line: Line, allowed: bool, tag: &str, tail: &StderrTail) {
    if line.bytes.iter().all(u8::is_ascii_whitespace) {
        return;
    }
    if allowed {
        let text = tail.redactor.text(&line);
        tracing::info!(target: "child", tag, "{text}");
    }
    tail.push(line);
}

fn report_suppressed(limiter: &mut LineRateLimiter, now: Instant, last: bool, tag: &str) {
    if let Some(lines) = limiter.suppressed(now, last) {
        tracing::warn!(
            tag,
            lines,
            "standard error lines dropped: the child writes more than child.stderr_lines_per_second"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt;
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    use super::*;

    /// Counts log events: lines of children, and reports of suppressed lines.
    #[derive(Clone, Default)]
    struct EventCounter {
        lines: Arc<AtomicUsize>,
        reports: Arc<AtomicUsize>,
    }

    impl Subscriber for EventCounter {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let of_child = event.metadata().target() == "child";
            let count = if of_child { &self.lines } else { &self.reports };
            count.fetch_add(1, Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[tokio::test(start_paused = true)]
    async fn flood_is_logged_within_the_rate_limit_and_its_end_is_kept() {
        let log = EventCounter::default();
        let _guard = tracing::subscriber::set_default(log.clone());
        let flood: String = (1..=5000).map(|n| format!("all is lost {n}\n")).collect();
        let lines = pumped(&[flood.as_bytes()], 100).await;
        // One line a second with bursts of ten; time stands still.
        assert_eq!(log.lines.load(Ordering::Relaxed), 10);
        assert_eq!(log.reports.load(Ordering::Relaxed), 1);
        assert_eq!(lines.last().map(String::as_str), Some("all is lost 5000"));
    }

    async fn pumped(pieces: &[&[u8]], limit: usize) -> Vec<String> {
        let (mut child, ours) = tokio::io::duplex(16);
        let tail = StderrTail::new(Redactor::new(&["s3cr3t-t0k3n".into()]));
        let limits = LogLimits {
            line: limit,
            lines_per_second: 1,
        };
        let write = async {
            for piece in pieces {
                child.write_all(piece).await.unwrap();
            }
            drop(child);
        };
        tokio::join!(write, pump(ours, limits, "tag", &tail));
        tail.lines()
    }

    #[tokio::test]
    async fn secret_is_redacted_even_if_it_arrives_in_pieces() {
        let lines = pumped(&[b"token s3cr", b"3t-t0", b"k3n was refused\n"], 4096).await;
        assert_eq!(lines, ["token [redacted] was refused"]);
    }

    #[tokio::test]
    async fn last_lines_are_kept_and_empty_ones_are_not() {
        let text: String = (1..=30).map(|n| format!("line {n}\n\n")).collect();
        let lines = pumped(&[text.as_bytes()], 4096).await;
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!((lines[0].as_str(), lines[19].as_str()), ("line 11", "line 30"));
    }

    #[test]
    fn debug_shows_no_line() {
        let tail = StderrTail::new(Redactor::new(&[]));
        tail.push(Line {
            bytes: b"s3cr3t".to_vec(),
            end: line_splitter::LineEnd::Complete,
        });
        assert_eq!(tail.lines(), ["s3cr3t"]);
        assert!(!format!("{tail:?}").contains("s3cr3t"));
    }

    #[tokio::test]
    async fn last_line_without_a_line_feed_is_kept() {
        assert_eq!(pumped(&[b"exit: bad token"], 4096).await, ["exit: bad token"]);
    }

    #[tokio::test]
    async fn endless_line_costs_no_memory_and_does_not_block_reading() {
        let noise = vec![b'x'; 1024 * 1024];
        let lines = pumped(&[&noise, b"\nnext\n"], 100).await;
        assert_eq!(lines[0], format!("{} [cut]", "x".repeat(100)));
        assert_eq!(lines[1], "next");
    }
}
