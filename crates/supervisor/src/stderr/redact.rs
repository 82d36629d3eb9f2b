//! LineSplitter to text without secrets.
//!
//! A secret is looked for in whole lines, after the escapes are gone, so that neither the end of a read nor a
//! colour in the middle of it hides it. Where a line was cut, the cut may have gone through a secret; a tail
//! that could be the beginning of one is replaced too. Encoded forms (base64, percent signs) are not known.

use std::ops::Range;

use secrecy::{ExposeSecret, SecretBox, SecretString};

use super::lines::{Line, LineEnd, LineSplitter};

const REDACTED: &str = "[redacted]";

/// Knows the secrets of one child.
#[derive(Debug)]
pub(crate) struct Redactor {
    /// What to look for, none of them empty: each line of each secret, in the form that the cutter gives to a
    /// line.
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
        while at < line.bytes.len() {
            let run = hidden[at..].iter().take_while(|&&other| other == hidden[at]).count();
            if hidden[at] {
                text.push_str(REDACTED);
            } else {
                push_printable(&mut text, &line.bytes[at..at + run]);
            }
            at += run;
        }
        if line.cut == LineEnd::Limit {
            text.push_str(" [cut]");
        }
        text
    }

    /// Marks every byte of the line that belongs to a secret. Marks, and not replaces at once, because secrets
    /// may overlap.
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
            if line.cut != LineEnd::Whole {
                let longest = needle.len().min(line.bytes.len());
                let tail = (1..=longest)
                    .rev()
                    .find(|&length| line.bytes.ends_with(&needle[..length]));
                hide(line.bytes.len() - tail.unwrap_or(0)..line.bytes.len());
            }
        }
        hidden
    }
}

/// Adds `bytes` as text. What is not UTF-8, and characters that a log reader's terminal might obey (C1 controls,
/// line separators, changes of direction), become replacement characters.
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

    fn redacted(secrets: &[&str], text: &str, cut: LineEnd) -> String {
        let secrets: Vec<SecretString> = secrets.iter().map(|&secret| secret.into()).collect();
        Redactor::new(&secrets).text(&Line {
            bytes: text.as_bytes().to_vec(),
            cut,
        })
    }

    #[test]
    fn every_occurrence_of_every_secret_is_replaced() {
        let text = redacted(&["alpha", "beta"], "alpha, beta; alphabeta alph", LineEnd::Whole);
        assert_eq!(text, "[redacted], [redacted]; [redacted] alph");
    }

    #[test]
    fn overlapping_secrets_leave_nothing_of_either() {
        assert_eq!(redacted(&["abcd", "cdef"], "xabcdefx", LineEnd::Whole), "x[redacted]x");
        assert_eq!(redacted(&["abab"], "xabababx", LineEnd::Whole), "x[redacted]x");
    }

    #[test]
    fn a_secret_that_the_cut_goes_through_is_not_shown_in_part() {
        assert_eq!(
            redacted(&["s3cr3t"], "token s3cr", LineEnd::Limit),
            "token [redacted] [cut]"
        );
        assert_eq!(redacted(&["s3cr3t"], "token s3cr", LineEnd::End), "token [redacted]");
        assert_eq!(redacted(&["s3cr3t"], "token s3cr", LineEnd::Whole), "token s3cr");
    }

    #[test]
    fn a_cut_line_shorter_than_the_secret_is_hidden() {
        assert_eq!(redacted(&["s3cr3t"], "s3", LineEnd::End), "[redacted]");
    }

    #[test]
    fn each_line_of_a_secret_of_several_lines_is_a_secret() {
        assert_eq!(
            redacted(&["-----\nkey one\r\nkey two\n"], "got key two", LineEnd::Whole),
            "got [redacted]"
        );
    }

    #[test]
    fn an_empty_secret_hides_nothing() {
        assert_eq!(redacted(&["", "\n\n"], "plain", LineEnd::End), "plain");
    }

    #[test]
    fn debug_does_not_show_the_secrets() {
        assert!(!format!("{:?}", Redactor::new(&["s3cr3t".into()])).contains("s3cr3t"));
    }

    #[test]
    fn what_a_terminal_might_obey_becomes_a_replacement_character() {
        let shown = redacted(&[], "a\u{9b}31mb\u{202e}c\u{2028}d", LineEnd::Whole);
        assert_eq!(shown, "a\u{fffd}31mb\u{fffd}c\u{fffd}d");
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        let line = Line {
            bytes: b"a\xffb".to_vec(),
            cut: LineEnd::Whole,
        };
        assert_eq!(Redactor::new(&[]).text(&line), "a\u{fffd}b");
    }
}
