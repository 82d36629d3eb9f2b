//! What reads bytes from outside, to be fed with bytes of any sort: framing, messages and batches, event ids.
//!
//! Each target takes arbitrary bytes and panics if something does not hold. The tests here run them on the corpora in
//! `fuzz/corpus` and on `BRIDGE_FUZZ_RUNS` mutations of these, which follow from `BRIDGE_FUZZ_SEED`; with the feature `fuzzing` the targets
//! are public, for any fuzzer that wants to drive them.

use crate::{
    envelope::{Envelope, Kind, Malformed},
    event_id::{Asked, EventId},
    framing::{Frame, Framer},
    legacy, overlong,
};

/// Lines are the same however the bytes arrive, none is longer than the limit, and nothing else is kept.
///
/// The first byte is the limit, the second the length of the pieces.
///
/// # Panics
///
/// If that does not hold.
pub fn framing(bytes: &[u8]) {
    let [limit, piece, bytes @ ..] = bytes else { return };
    let (limit, piece) = (usize::from(*limit), usize::from(*piece) + 1);
    let mut framer = Framer::new(limit);
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        framer.buffer().extend_from_slice(piece);
        while let Some(frame) = framer.next() {
            frames.push(frame);
        }
        assert!(framer.buffer().len() <= limit + piece.len());
    }
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    assert_eq!(frames.len(), lines.len());
    for (frame, line) in frames.iter().zip(lines) {
        match frame {
            Frame::Line(framed) => assert!(framed == line && line.len() <= limit),
            Frame::TooLong(excerpt) => {
                assert!(line.len() > limit && line.starts_with(&excerpt.head) && line.ends_with(&excerpt.tail));
                // Of what was read only a whole answer is believed.
                if let (Some(id), Ok(message)) = (overlong::answered(excerpt), Envelope::parse(line)) {
                    let Kind::Response { id: Some(answered), .. } = message.kind() else {
                        panic!("{message:?} is no answer")
                    };
                    assert_eq!(answered.number(), Some(id));
                }
            }
        }
    }
    assert_eq!(framer.is_within_line(), !last.is_empty());
}

/// A message that is taken is JSON on one line, and stays what it is when it is rewritten.
///
/// # Panics
///
/// If that does not hold.
pub fn envelope(bytes: &[u8]) {
    match Envelope::parse(bytes) {
        Ok(message) => rewritten(&message, bytes),
        Err(Malformed::Batch) => {
            for message in legacy::split(bytes).unwrap_or_default() {
                let text = message.clone().into_line();
                rewritten(&message, &text);
            }
        }
        Err(Malformed::NotUtf8) => assert!(std::str::from_utf8(bytes).is_err()),
        Err(Malformed::NotJson | Malformed::NotJsonRpc(_)) => {}
    }
}

/// An event id that is taken has one spelling, which passes through a header, and names ids that fit into a message.
///
/// # Panics
///
/// If that does not hold.
pub fn event_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(event) = EventId::parse(text) else { return };
    assert_eq!(event.to_string(), text);
    assert!(http::HeaderValue::from_str(text).is_ok());
    let ids = event.asked.ids();
    assert_eq!(Asked::new(&ids), event.asked);
    for id in ids {
        let error = crate::rpc::error(id.raw(), crate::rpc::UNAVAILABLE, "text");
        let read = Envelope::parse(&error).map(|message| message.kind().clone());
        assert!(matches!(read, Ok(Kind::Response { id: Some(read), error: true }) if read == id));
    }
}

fn rewritten(message: &Envelope, bytes: &[u8]) {
    let line = message.clone().into_line();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    assert_eq!(line.len(), bytes.len());
    let read = |bytes: &[u8]| Envelope::parse(bytes).unwrap_or_else(|why| panic!("{why:?}: {bytes:?}"));
    assert_eq!(read(&line).kind(), message.kind());
    if let Kind::Request { id, .. } = message.kind() {
        assert_eq!(message.with_id(id.raw()), line);
        let other = read(&message.with_id("4711"));
        assert_eq!((other.params(), other.outcome()), (message.params(), message.outcome()));
        assert_eq!(read(&other.with_id(id.raw())).into_line(), line);
    }
    for name in ["protocolVersion", "requestId"] {
        let mut changed = message.clone();
        changed.set_param(name, "\"changed\"");
        assert_eq!(changed.param(name), message.param(name).map(|_| "\"changed\""));
        assert_eq!(read(&changed.into_line()).kind(), message.kind());
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::dice::{Dice, setting};

    /// What is worth putting anywhere.
    const WORDS: [&[u8]; 16] = [
        b"\"jsonrpc\":\"2.0\"",
        b"\"id\":",
        b"\"method\":\"m\"",
        b"\"params\":{",
        b"\"result\":",
        b"\"error\":",
        b"null",
        b"{}",
        b"[",
        b"]",
        b",",
        b"\\u0022",
        b"\n",
        b"\r\n",
        b"-",
        b"\xff",
    ];

    fn corpus(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(folder)
            .expect("a corpus")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files.iter().map(|file| fs::read(file).expect("a file")).collect()
    }

    fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = dice.roll(bytes.len() + 1);
        let end = at + dice.roll(bytes.len() - at + 1);
        match dice.roll(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            1 if at < bytes.len() => bytes[at] = dice.roll(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let from = dice.roll(other.len() + 1);
                bytes.splice(at..end, other[from..].iter().copied());
            }
            _ => {
                let word = *dice.pick(&WORDS);
                bytes.splice(at..at, word.iter().copied());
            }
        }
        bytes.truncate(4096);
    }

    fn run(name: &str, target: fn(&[u8])) {
        let corpus = corpus(name);
        assert!(!corpus.is_empty());
        corpus.iter().for_each(|bytes| target(bytes));
        let mut dice = Dice::new(setting("BRIDGE_FUZZ_SEED", 0));
        for _ in 0..setting("BRIDGE_FUZZ_RUNS", 50_000) {
            let mut bytes = dice.pick(&corpus).clone();
            for _ in 0..1 + dice.roll(4) {
                let other = dice.pick(&corpus).clone();
                mutate(&mut dice, &mut bytes, &other);
            }
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "{name} fails on \"{}\"", bytes.escape_ascii());
        }
    }

    #[test]
    fn framing_holds_on_anything() {
        run("framing", framing);
    }

    #[test]
    fn envelopes_hold_on_anything() {
        run("envelope", envelope);
    }

    #[test]
    fn event_ids_hold_on_anything() {
        run("event_id", event_id);
    }
}
