//! A child's standard error on its way to the log.
//!
//! The pump reads as fast as the child writes and never waits for anything else, so that a child is never
//! blocked by what it reports. What it reads becomes lines without control characters ([`lines`]) and without
//! the secrets of the order ([`redact`]); each goes to the log under the target `child`, and the last ones are
//! kept for error reports. How often a child may log is not limited here.

mod lines;
mod redact;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) use redact::Redactor;

use lines::{Line, Lines};

/// How many lines are kept.
const KEPT: usize = 20;

/// How much is read at once, in bytes.
const CHUNK: usize = 8 * 1024;

/// The last lines that a child wrote.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    /// At most [`KEPT`] lines, oldest first, already redacted. Locked only to push one or to copy them.
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Tail {
    /// A copy of the lines, oldest first.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    fn push(&self, line: String) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Reads `stderr` to its end, logs every line and keeps the last ones in `tail`.
pub(crate) async fn pump(
    mut stderr: impl AsyncRead + Unpin,
    limit: usize,
    redactor: &Redactor,
    tag: &str,
    tail: &Tail,
) {
    let keep = |line: &Line| {
        let text = redactor.text(line);
        if !text.trim().is_empty() {
            tracing::info!(target: "child", tag, "{text}");
            tail.push(text);
        }
    };
    let mut lines = Lines::new(limit);
    let mut chunk = vec![0; CHUNK];
    loop {
        match stderr.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => lines.push(&chunk[..read], keep),
            Err(error) => {
                tracing::warn!(tag, %error, "the child's standard error can no longer be read");
                break;
            }
        }
    }
    if let Some(line) = lines.finish() {
        keep(&line);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn pumped(pieces: &[&[u8]], limit: usize) -> Vec<String> {
        let (mut child, ours) = tokio::io::duplex(16);
        let tail = Tail::default();
        let redactor = Redactor::new(&["s3cr3t-t0k3n".into()]);
        let write = async {
            for piece in pieces {
                child.write_all(piece).await.unwrap();
            }
            drop(child);
        };
        tokio::join!(write, pump(ours, limit, &redactor, "tag", &tail));
        tail.lines()
    }

    #[tokio::test]
    async fn a_secret_is_redacted_even_if_it_arrives_in_pieces() {
        let lines = pumped(&[b"token s3cr", b"3t-t0", b"k3n was refused\n"], 4096).await;
        assert_eq!(lines, ["token [redacted] was refused"]);
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_empty_ones_are_not() {
        let text: String = (1..=30).map(|n| format!("line {n}\n\n")).collect();
        let lines = pumped(&[text.as_bytes()], 4096).await;
        assert_eq!(lines.len(), KEPT);
        assert_eq!((lines[0].as_str(), lines[19].as_str()), ("line 11", "line 30"));
    }

    #[tokio::test]
    async fn a_last_line_without_a_line_feed_is_kept() {
        assert_eq!(pumped(&[b"exit: bad token"], 4096).await, ["exit: bad token"]);
    }

    #[tokio::test]
    async fn a_line_without_end_costs_no_memory_and_does_not_stop_the_reading() {
        let noise = vec![b'x'; 1024 * 1024];
        let lines = pumped(&[&noise, b"\nnext\n"], 100).await;
        assert_eq!(lines[0], format!("{} [cut]", "x".repeat(100)));
        assert_eq!(lines[1], "next");
    }
}
