//! Splitting bytes into lines without terminal escapes and control characters.
//!
//! It works byte by byte and keeps its state between reads, so the boundaries of reads do not
//! matter. A line over the limit is truncated, so memory use is bounded by the limit. A line feed
//! ends the line in any state, so an unterminated escape sequence swallows no more than its own
//! line.

/// One line, without control characters and escape sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: LineEnd,
}

/// The end of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Complete,
    /// The line was over the limit and the rest was dropped.
    Truncated,
    /// The stream ended, perhaps in the middle of a line.
    EndOfStream,
}

/// See ECMA-48 section 5.4 for control sequences and 5.6 for control strings.
#[derive(Debug)]
pub(crate) struct LineSplitter {
    limit: usize,
    line: Vec<u8>,
    over: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Text,
    /// After ESC.
    Escape,
    /// After ESC `[`, until a final byte.
    Sequence,
    /// After ESC `]` and similar, until BEL or ESC `\`.
    String,
    /// After ESC inside such a string.
    StringEscape,
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

impl LineSplitter {
    /// Lines of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            over: false,
            state: State::Text,
        }
    }

    /// Consumes the next bytes and passes every line that they complete to `each`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            if byte == b'\n' {
                let end = if self.over {
                    LineEnd::Truncated
                } else {
                    LineEnd::Complete
                };
                each(self.take(end));
            } else if self.over {
                // The rest of the line is dropped in any state: skip to its end.
                let skipped = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
                bytes = &bytes[skipped..];
            } else {
                self.step(byte);
            }
        }
    }

    /// The rest of the stream, which has ended.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let end = if self.over {
            LineEnd::Truncated
        } else {
            LineEnd::EndOfStream
        };
        (!self.line.is_empty()).then(|| self.take(end))
    }

    fn take(&mut self, end: LineEnd) -> Line {
        self.over = false;
        self.state = State::Text;
        Line {
            bytes: std::mem::take(&mut self.line),
            end,
        }
    }

    fn step(&mut self, byte: u8) {
        self.state = match (self.state, byte) {
            (State::Text | State::Escape | State::Sequence, ESC) => State::Escape,
            (State::Escape, b'[') => State::Sequence,
            (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::String,
            (State::Escape, 0x20..=0x2f) => State::Escape,
            (State::Escape, 0x30..=0x7e) | (State::Sequence, 0x40..=0x7e) => State::Text,
            (State::Sequence, 0x20..=0x3f) => State::Sequence,
            (State::String, BEL) | (State::StringEscape, b'\\') => State::Text,
            (State::String | State::StringEscape, ESC) => State::StringEscape,
            (State::String | State::StringEscape, _) => State::String,
            // Text, or a byte that is invalid in a sequence and so ends it.
            (State::Text | State::Escape | State::Sequence, _) => {
                self.keep(byte);
                State::Text
            }
        };
    }

    fn keep(&mut self, byte: u8) {
        let byte = match byte {
            b'\t' => b' ',
            0..0x20 | 0x7f => return,
            _ => byte,
        };
        if self.line.len() < self.limit {
            self.line.push(byte);
        } else {
            self.over = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, limit: usize) -> Vec<(String, LineEnd)> {
        // One byte at a time: the boundaries of reads must not matter.
        let mut splitter = LineSplitter::new(limit);
        let mut all = Vec::new();
        for byte in text.bytes() {
            splitter.push(&[byte], |line| {
                all.push((String::from_utf8(line.bytes.clone()).unwrap(), line.end));
            });
        }
        if let Some(line) = splitter.finish() {
            all.push((String::from_utf8(line.bytes).unwrap(), line.end));
        }
        all
    }

    fn line(text: &str) -> String {
        lines(&format!("{text}\n"), 1000).remove(0).0
    }

    #[test]
    fn escape_sequences_are_removed_completely() {
        assert_eq!(line("\x1b[1;31mERROR\x1b[0m it broke"), "ERROR it broke");
        assert_eq!(line("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c"), "abc");
        assert_eq!(line("a\x1b(Bb\x1bMc\x1b\x1b[Kd"), "abcd");
    }

    #[test]
    fn unterminated_escape_swallows_only_its_line() {
        assert_eq!(
            lines("a\x1b]never ends\nnext\n", 100),
            [("a".into(), LineEnd::Complete), ("next".into(), LineEnd::Complete)]
        );
    }

    #[test]
    fn control_characters_are_removed_and_tabs_become_spaces() {
        assert_eq!(line("a\r\0b\x08c\td\x7f"), "abc d");
    }

    #[test]
    fn text_beyond_ascii_is_kept() {
        assert_eq!(line("grüße \u{1f980}"), "grüße \u{1f980}");
    }

    #[test]
    fn long_line_is_truncated_at_the_limit_and_the_next_is_complete() {
        assert_eq!(
            lines("abcdef\nabcd\n", 4),
            [("abcd".into(), LineEnd::Truncated), ("abcd".into(), LineEnd::Complete)]
        );
    }

    #[test]
    fn end_of_stream_is_distinguished_from_end_of_line() {
        assert_eq!(
            lines("a\nb", 4),
            [("a".into(), LineEnd::Complete), ("b".into(), LineEnd::EndOfStream)]
        );
        assert_eq!(lines("a\n", 4).len(), 1);
    }
}
