//! Cuts a byte stream into lines: the framing of the stdio transport (MCP 2025-11-25, "stdio").
//!
//! Bytes go in as they arrive, in pieces of any size; whole lines come out without their line
//! break. A line longer than the limit is skipped to its end and reported once, with its beginning
//! and its end. The buffer never grows beyond about twice the limit.

use bytes::{Bytes, BytesMut};

/// The buffer space reserved for one read, in bytes.
const READ_SIZE: usize = 16 * 1024;
/// The bytes kept from each end of a line that is too long.
const EXCERPT_SIZE: usize = 512;

#[derive(Debug)]
pub(crate) struct Framer {
    buffer: BytesMut,
    limit: usize,
    /// The length of the prefix of `buffer` that holds no line break.
    searched: usize,
    /// The excerpt of the current line, if that line is too long.
    skipping: Option<LineExcerpt>,
}

/// Both ends of a line that was too long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LineExcerpt {
    pub(crate) head: Bytes,
    pub(crate) tail: Bytes,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Line(Bytes),
    /// A line longer than the limit, which was skipped.
    TooLong(LineExcerpt),
}

impl Framer {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            limit,
            searched: 0,
            skipping: None,
        }
    }

    /// The buffer for the next read. Call [`next`](Self::next) until it returns `None` before the
    /// next read.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ_SIZE);
        &mut self.buffer
    }

    /// The next frame; `None` when more bytes are needed.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = found.map(|offset| self.searched + offset) else {
            self.searched = self.buffer.len();
            if self.skipping.is_some() || self.buffer.len() > self.limit {
                let piece = std::mem::take(&mut self.buffer);
                self.searched = 0;
                self.skip(&piece);
            }
            return None;
        };
        let line = self.buffer.split_to(end + 1).freeze().slice(..end);
        self.searched = 0;
        if self.skipping.is_none() && line.len() <= self.limit {
            return Some(Frame::Line(line));
        }
        self.skip(&line);
        self.skipping.take().map(Frame::TooLong)
    }

    /// True if an end of the stream now would cut off a line.
    pub(crate) fn is_within_line(&self) -> bool {
        self.skipping.is_some() || !self.buffer.is_empty()
    }

    /// Updates the excerpt with the next piece of a line that is too long.
    fn skip(&mut self, piece: &[u8]) {
        let excerpt = self.skipping.get_or_insert_default();
        let room = EXCERPT_SIZE - excerpt.head.len();
        if room > 0 {
            let more = &piece[..piece.len().min(room)];
            excerpt.head = [&excerpt.head, more].concat().into();
        }
        let end = &piece[piece.len().saturating_sub(EXCERPT_SIZE)..];
        let before = excerpt.tail.len().min(EXCERPT_SIZE - end.len());
        excerpt.tail = [&excerpt.tail[excerpt.tail.len() - before..], end].concat().into();
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

    /// The frame of a line that is too long.
    fn too_long(text: &[u8]) -> Frame {
        Frame::TooLong(LineExcerpt {
            head: Bytes::copy_from_slice(&text[..text.len().min(EXCERPT_SIZE)]),
            tail: Bytes::copy_from_slice(&text[text.len().saturating_sub(EXCERPT_SIZE)..]),
        })
    }

    fn line(text: &str) -> Frame {
        Frame::Line(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_line_is_returned_once_complete() {
        let mut framer = Framer::new(10);
        assert_eq!(feed(&mut framer, b"ab"), []);
        assert!(framer.is_within_line());
        assert_eq!(feed(&mut framer, b"c\n\nd\ne"), [line("abc"), line(""), line("d")]);
        assert_eq!(feed(&mut framer, b"\n"), [line("e")]);
        assert!(!framer.is_within_line());
    }

    #[test]
    fn a_line_at_the_limit_passes_and_a_longer_one_is_skipped() {
        let mut framer = Framer::new(3);
        assert_eq!(
            feed(&mut framer, b"abc\nabcd\nx\n"),
            [line("abc"), too_long(b"abcd"), line("x")]
        );
    }

    #[test]
    fn a_very_long_line_is_reported_once_and_not_buffered() {
        let mut framer = Framer::new(8);
        assert_eq!(feed(&mut framer, &[b'y'; 700]), []);
        for _ in 0..1000 {
            assert_eq!(feed(&mut framer, &[b'x'; 1000]), []);
            assert!(framer.buffer.is_empty());
        }
        assert!(framer.is_within_line());
        let excerpt = LineExcerpt {
            head: vec![b'y'; EXCERPT_SIZE].into(),
            tail: [vec![b'x'; EXCERPT_SIZE - 1], b"z".to_vec()].concat().into(),
        };
        assert_eq!(feed(&mut framer, b"z\nok\n"), [Frame::TooLong(excerpt), line("ok")]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn frames_do_not_depend_on_read_sizes(
            bytes in prop::collection::vec(prop_oneof![1 => Just(b'\n'), 300 => any::<u8>()], 0..4000),
            cuts in prop::collection::vec(prop_oneof![1usize..40, 500usize..1100], 1..60),
            limit in prop_oneof![0usize..30, 400usize..1100],
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
            let expected: Vec<Frame> = lines.into_iter()
                .map(|text| if text.len() > limit { too_long(text) } else { Frame::Line(Bytes::copy_from_slice(text)) })
                .collect();
            prop_assert_eq!(frames, expected);
            prop_assert_eq!(framer.is_within_line(), !last.is_empty());
        }
    }
}
