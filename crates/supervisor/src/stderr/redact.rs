//! Converting lines to text without secrets.
//!
//! The search runs on whole lines without escape sequences, so neither the boundary of a read nor a
//! color in the middle hides a secret. If a line was truncated, the cut may be inside a secret, so
//! a suffix that could be the beginning of one is redacted too. Encoded forms (base64,
//! percent-encoding) are not detected.

use std::ops::Range;

use secrecy::{ExposeSecret, SecretBox, SecretString};

use super::line_splitter::{Line, LineEnd, LineSplitter};

const REDACTED: &str = "[redacted]";

/// Redacts the secrets of one child.
#[derive(Debug)]
pub(crate) struct Redactor {
    /// The strings to search for, none empty: each line of each secret, as the splitter returns it.
    needles: Vec<SecretBox<Vec<u8>>>,
}

impl Redactor {
    pub(crate) fn new(secrets: &[SecretString]) -> Self {
        let mut needles = Vec::new();
        for secret in secrets {
            let mut lines = LineSplitter::new(usize::MAX);
            let mut add = |line: Line| {
                if !line.bytes.is_empty() {
                    needles.push(SecretBox::new(Box::new(line.bytes)));
                }
            };
            lines.push(secret.expose_secret().as_bytes(), &mut add);
            if let Some(line) = lines.finish() {
                add(line);
            }
        }
        Self { needles }
    }

    /// The line as text that may be shown.
    pub(crate) fn text(&self, line: &Line) -> String {
        let hidden = self.hidden(line);
        let mut text = String::with_capacity(line.bytes.len());
        let mut at = 0;
        for run in hidden.chunk_by(|one, next| one == next) {
            if run[0] {
                text.push_str(REDACTED);
            } else {
                push_printable(&mut text, &line.bytes[at..at + run.len()]);
            }
            at += run.len();
        }
        if line.end == LineEnd::Truncated {
            text.push_str(" [cut]");
        }
        text
    }

    /// Marks every byte of the line that belongs to a secret. It does not replace them at once,
    /// since secrets may overlap.
    fn hidden(&self, line: &Line) -> Vec<bool> {
        let mut hidden = vec![false; line.bytes.len()];
        let mut hide = |range: Range<usize>| hidden[range].fill(true);
        for needle in &self.needles {
            let needle = needle.expose_secret().as_slice();
            for (at, window) in line.bytes.windows(needle.len()).enumerate() {
                if window == needle {
                    hide(at..at + needle.len());
                }
            }
            if line.end != LineEnd::Complete {
                let longest = needle.len().min(line.bytes.len());
                let suffix = (1..=longest)
                    .rev()
                    .find(|&length| line.bytes.ends_with(&needle[..length]));
                hide(line.bytes.len() - suffix.unwrap_or(0)..line.bytes.len());
            }
        }
        hidden
    }
}

/// Appends `bytes` as text. Invalid UTF-8, and characters that the terminal of a log reader might
/// interpret (C1 controls, line separators, changes of direction), become replacement characters.
fn push_printable(text: &mut String, bytes: &[u8]) {
    text.extend(String::from_utf8_lossy(bytes).chars().map(|c| match c {
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(secrets: &[&str], text: &str, end: LineEnd) -> String {
        let secrets: Vec<SecretString> = secrets.iter().map(|&secret| secret.into()).collect();
        Redactor::new(&secrets).text(&Line {
            bytes: text.as_bytes().to_vec(),
            end,
        })
    }

    #[test]
    fn every_occurrence_of_every_secret_is_redacted() {
        let text = redacted(&["alpha", "beta"], "alpha, beta; alphabeta alph", LineEnd::Complete);
        assert_eq!(text, "[redacted], [redacted]; [redacted] alph");
    }

    #[test]
    fn overlapping_secrets_are_both_redacted() {
        assert_eq!(
            redacted(&["abcd", "cdef"], "xabcdefx", LineEnd::Complete),
            "x[redacted]x"
        );
        assert_eq!(redacted(&["abab"], "xabababx", LineEnd::Complete), "x[redacted]x");
    }

    #[test]
    fn secret_split_by_a_truncation_is_redacted() {
        assert_eq!(
            redacted(&["s3cr3t"], "token s3cr", LineEnd::Truncated),
            "token [redacted] [cut]"
        );
        assert_eq!(
            redacted(&["s3cr3t"], "token s3cr", LineEnd::EndOfStream),
            "token [redacted]"
        );
        assert_eq!(redacted(&["s3cr3t"], "token s3cr", LineEnd::Complete), "token s3cr");
    }

    #[test]
    fn truncated_line_shorter_than_the_secret_is_redacted() {
        assert_eq!(redacted(&["s3cr3t"], "s3", LineEnd::EndOfStream), "[redacted]");
    }

    #[test]
    fn each_line_of_a_multi_line_secret_is_redacted() {
        assert_eq!(
            redacted(&["-----\nkey one\r\nkey two\n"], "got key two", LineEnd::Complete),
            "got [redacted]"
        );
    }

    #[test]
    fn empty_secret_redacts_nothing() {
        assert_eq!(redacted(&["", "\n\n"], "plain", LineEnd::EndOfStream), "plain");
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", Redactor::new(&["s3cr3t".into()])).contains("s3cr3t"));
    }

    #[test]
    fn characters_that_a_terminal_might_interpret_become_replacement_characters() {
        let shown = redacted(&[], "a\u{9b}31mb\u{202e}c\u{2028}d", LineEnd::Complete);
        assert_eq!(shown, "a\u{fffd}31mb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn invalid_utf8_becomes_replacement_characters() {
        let line = Line {
            bytes: b"a\xffb".to_vec(),
            end: LineEnd::Complete,
        };
        assert_eq!(Redactor::new(&[]).text(&line), "a\u{fffd}b");
    }
}
