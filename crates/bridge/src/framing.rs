//! Lines out of a byte stream: the framing of stdio transport (MCP 2025-11-25, "stdio").
//!
//! Bytes go in as they arrive, in pieces of any size; whole lines come out, without their line break. A line longer than
//! the limit is skipped to its end and reported once, and the buffer never grows beyond about twice the limit. Whether a line means anything is not decided here.

use bytes::{Bytes, BytesMut};

/// How much room is made for one read.
const READ: usize = 16 * 1024;

/// Cuts a byte stream into lines.
#[derive(Debug)]
pub(crate) struct Framer {
    buffer: BytesMut,
    limit: usize,
    /// How much of `buffer` is known to hold no line break.
    searched: usize,
    /// Whether the beginning of the current line has been thrown away.
    skipping: bool,
}

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A whole line.
    Line(Bytes),
    /// A line was longer than the limit and is skipped.
    TooLong,
}

impl Framer {
    /// A framer for lines of up to `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
            searched: 0,
            skipping: false,
        }
    }

    /// The buffer to append what was read to. [`next`](Self::next) has to be called until it is empty before the next read.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// The next frame; `None` when more has to be read.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let Some(end) = found.map(|offset| self.searched + offset) else {
                self.searched = self.buffer.len();
                if self.skipping {
                    self.forget();
                } else if self.buffer.len() > self.limit {
                    self.forget();
                    self.skipping = true;
                    return Some(Frame::TooLong);
                }
                return None;
            };
            let line = self.buffer.split_to(end + 1).freeze().slice(..end);
            self.searched = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            return Some(if line.len() > self.limit {
                Frame::TooLong
            } else {
                Frame::Line(line)
            });
        }
    }

    /// Whether the stream, if it ends now, ends within a line.
    pub(crate) fn is_within_line(&self) -> bool {
        self.skipping || !self.buffer.is_empty()
    }

    fn forget(&mut self) {
        self.buffer = BytesMut::new();
        self.searched = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(framer: &mut Framer, piece: &[u8]) -> Vec<Frame> {
        framer.buffer().extend_from_slice(piece);
        std::iter::from_fn(|| framer.next()).collect()
    }

    fn line(text: &str) -> Frame {
        Frame::Line(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_line_comes_when_it_is_whole() {
        let mut framer = Framer::new(10);
        assert_eq!(feed(&mut framer, b"ab"), []);
        assert!(framer.is_within_line());
        assert_eq!(feed(&mut framer, b"c\n\nd\ne"), [line("abc"), line(""), line("d")]);
        assert_eq!(feed(&mut framer, b"\n"), [line("e")]);
        assert!(!framer.is_within_line());
    }

    #[test]
    fn a_line_of_the_limit_passes_and_one_byte_more_is_skipped_to_its_end() {
        let mut framer = Framer::new(3);
        assert_eq!(
            feed(&mut framer, b"abc\nabcd\nx\n"),
            [line("abc"), Frame::TooLong, line("x")]
        );
    }

    #[test]
    fn an_endless_line_is_reported_once_and_takes_no_room() {
        let mut framer = Framer::new(8);
        assert_eq!(feed(&mut framer, &[b'x'; 9]), [Frame::TooLong]);
        for _ in 0..1000 {
            assert_eq!(feed(&mut framer, &[b'x'; 1000]), []);
            assert!(framer.buffer.is_empty());
        }
        assert!(framer.is_within_line());
        assert_eq!(feed(&mut framer, b"x\nok\n"), [line("ok")]);
    }

    proptest! {
        #[test]
        fn the_frames_do_not_depend_on_how_the_bytes_arrive(
            bytes in prop::collection::vec(prop_oneof![3 => Just(b'\n'), 10 => any::<u8>()], 0..400),
            cuts in prop::collection::vec(1usize..40, 1..60),
            limit in 0usize..30,
        ) {
            let mut framer = Framer::new(limit);
            let mut frames = Vec::new();
            let (mut rest, mut cuts) = (bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at((*cuts.next().expect("a cycle")).min(rest.len()));
                frames.extend(feed(&mut framer, piece));
                rest = after;
            }
            let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
            let last = lines.pop().expect("split gives one part at least");
            let mut expected: Vec<Frame> = lines.into_iter()
                .map(|text| if text.len() > limit { Frame::TooLong } else { Frame::Line(Bytes::copy_from_slice(text)) })
                .collect();
            if last.len() > limit {
                expected.push(Frame::TooLong);
            }
            prop_assert_eq!(frames, expected);
            prop_assert_eq!(framer.is_within_line(), !last.is_empty());
        }
    }
}
