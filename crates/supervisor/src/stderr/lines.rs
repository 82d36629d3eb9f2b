//! Bytes to lines, without terminal escapes and control characters.
//!
//! Works byte by byte and keeps its state between reads, so that it does not matter where a read ends. A line
//! over the limit is cut and its rest dropped; the memory taken is the limit. A line feed ends the line in any
//! state, so that an escape sequence without an end swallows no more than the line that it is in.

/// One line, as bytes that are neither control characters nor part of an escape sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) bytes: Vec<u8>,
    /// Whether there was more of it: it was over the limit, or the stream ended without a line feed.
    pub(crate) cut: LineEnd,
}

/// Whether a line is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineEnd {
    Whole,
    /// The rest was dropped.
    Limit,
    /// The stream ended, perhaps in the middle of a line.
    End,
}

/// The cutter. See ECMA-48 section 5.4 for control sequences and 5.6 for control strings.
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
    /// After ESC `]` and its kin, until BEL or ESC `\`.
    String,
    /// After ESC inside such a string.
    StringEscape,
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

impl LineSplitter {
    /// LineSplitter of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            line: Vec::new(),
            over: false,
            state: State::Text,
        }
    }

    /// Takes the next bytes and gives every line that they complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Line)) {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            if byte == b'\n' {
                let cut = if self.over { LineEnd::Limit } else { LineEnd::Whole };
                each(self.take(cut));
            } else if self.over {
                // Nothing of the line is kept any more, in whatever state: on to its end.
                let skipped = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
                bytes = &bytes[skipped..];
            } else {
                self.step(byte);
            }
        }
    }

    /// The stream has ended: gives what is left.
    pub(crate) fn finish(&mut self) -> Option<Line> {
        let cut = if self.over { LineEnd::Limit } else { LineEnd::End };
        (!self.line.is_empty()).then(|| self.take(cut))
    }

    fn take(&mut self, cut: LineEnd) -> Line {
        self.over = false;
        self.state = State::Text;
        Line {
            bytes: std::mem::take(&mut self.line),
            cut,
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
            // Text, or a byte that no sequence may contain, which ends the sequence.
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
        // One byte at a time: where a read ends must not matter.
        let mut cutter = LineSplitter::new(limit);
        let mut all = Vec::new();
        for byte in text.bytes() {
            cutter.push(&[byte], |line| {
                all.push((String::from_utf8(line.bytes.clone()).unwrap(), line.cut));
            });
        }
        if let Some(line) = cutter.finish() {
            all.push((String::from_utf8(line.bytes).unwrap(), line.cut));
        }
        all
    }

    fn line(text: &str) -> String {
        lines(&format!("{text}\n"), 1000).remove(0).0
    }

    #[test]
    fn escape_sequences_are_removed_whole() {
        assert_eq!(line("\x1b[1;31mERROR\x1b[0m it broke"), "ERROR it broke");
        assert_eq!(line("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c"), "abc");
        assert_eq!(line("a\x1b(Bb\x1bMc\x1b\x1b[Kd"), "abcd");
    }

    #[test]
    fn an_escape_without_end_swallows_only_its_line() {
        assert_eq!(
            lines("a\x1b]never ends\nnext\n", 100),
            [("a".into(), LineEnd::Whole), ("next".into(), LineEnd::Whole)]
        );
    }

    #[test]
    fn control_characters_are_removed_and_a_tab_is_a_space() {
        assert_eq!(line("a\r\0b\x08c\td\x7f"), "abc d");
    }

    #[test]
    fn text_beyond_ascii_is_kept() {
        assert_eq!(line("grüße \u{1f980}"), "grüße \u{1f980}");
    }

    #[test]
    fn a_long_line_is_cut_at_the_limit_and_the_next_is_whole() {
        assert_eq!(
            lines("abcdef\nabcd\n", 4),
            [("abcd".into(), LineEnd::Limit), ("abcd".into(), LineEnd::Whole)]
        );
    }

    #[test]
    fn the_end_of_the_stream_is_told_apart_from_the_end_of_a_line() {
        assert_eq!(
            lines("a\nb", 4),
            [("a".into(), LineEnd::Whole), ("b".into(), LineEnd::End)]
        );
        assert_eq!(lines("a\n", 4).len(), 1);
    }
}
