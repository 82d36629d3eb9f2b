//! Fuzz tests for everything that reads bytes from outside: framing, messages and batches, event
//! ids.
//!
//! Each target takes arbitrary bytes and panics if a property fails. The tests run the targets on
//! the corpora in `fuzz/corpus` and on `BRIDGE_FUZZ_RUNS` mutations of them, derived from
//! `BRIDGE_FUZZ_SEED`.

use std::{fs, path::Path};

use fastrand::Rng;

use crate::{
    jsonrpc::{self, Envelope, MessageError, MessageKind},
    link::{
        framing::{Frame, Framer},
        unreadable_line,
    },
    machine,
    streams::{EventId, RequestIds},
};

/// Checks that frames do not depend on read sizes and that no line exceeds the limit.
///
/// The first byte is the limit, the second the size of a read.
fn framing(bytes: &[u8]) {
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
                // A recognized response agrees with the whole line.
                if let (Some(id), Ok(message)) = (
                    unreadable_line::answered_call_of_excerpt(excerpt),
                    Envelope::parse(line),
                ) {
                    let MessageKind::Response { id: Some(answered), .. } = message.kind() else {
                        panic!("{message:?} is not a response")
                    };
                    assert_eq!(answered.number(), Some(id));
                }
            }
        }
    }
    assert_eq!(framer.is_within_line(), !last.is_empty());
}

/// Checks that a call is found in a valid line only if the line is its response.
fn unreadable_line(bytes: &[u8]) {
    let found = unreadable_line::answered_call(bytes);
    let Ok(message) = Envelope::parse(bytes) else { return };
    match message.kind() {
        MessageKind::Response { id: Some(id), .. } => {
            let text = id.text().and_then(|text| text.parse().ok());
            assert!(found.is_none() || found == id.number().or(text), "{found:?}");
        }
        MessageKind::Response { id: None, .. } => assert_eq!(found, None),
        MessageKind::Request { .. } | MessageKind::Notification { .. } => {}
    }
}

/// Checks that a valid message is one line of JSON and keeps its meaning when rewritten.
fn envelope(bytes: &[u8]) {
    match Envelope::parse(bytes) {
        Ok(message) => check_rewrites(&message, bytes),
        Err(MessageError::Batch) => {
            for message in machine::split_batch(bytes).unwrap_or_default() {
                let text = message.clone().into_line();
                check_rewrites(&message, &text);
            }
        }
        Err(MessageError::NotUtf8) => assert!(std::str::from_utf8(bytes).is_err()),
        Err(MessageError::NotJson | MessageError::NotJsonRpc(_)) => {}
    }
}

/// Checks that a valid event id has one spelling, fits into a header, and names ids that fit into a
/// message.
fn event_id(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some(event) = EventId::parse(text) else { return };
    assert_eq!(event.to_string(), text);
    assert!(http::HeaderValue::from_str(text).is_ok());
    let ids = event.requests.ids();
    assert_eq!(RequestIds::new(&ids), event.requests);
    for id in ids {
        let error = jsonrpc::error(id.raw(), jsonrpc::UNAVAILABLE, "text");
        let read = Envelope::parse(&error).map(|message| message.kind().clone());
        assert!(matches!(read, Ok(MessageKind::Response { id: Some(read), error: true }) if read == id));
    }
}

fn check_rewrites(message: &Envelope, bytes: &[u8]) {
    let line = message.clone().into_line();
    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
    assert_eq!(line.len(), bytes.len());
    let read = |bytes: &[u8]| Envelope::parse(bytes).unwrap_or_else(|why| panic!("{why:?}: {bytes:?}"));
    assert_eq!(read(&line).kind(), message.kind());
    if let MessageKind::Request { id, .. } = message.kind() {
        assert_eq!(message.with_id(id.raw()), line);
        let other = read(&message.with_id("4711"));
        assert_eq!((other.params(), other.outcome()), (message.params(), message.outcome()));
        assert_eq!(read(&other.with_id(id.raw())).into_line(), line);
    }
    if let MessageKind::Request { .. } = message.kind() {
        let other = read(&message.with_id_and_token("4712"));
        let token = message.progress_token().map(|_| "4712".to_owned());
        assert_eq!(other.progress_token().map(|token| token.raw().to_owned()), token);
    }
    for name in ["protocolVersion", "requestId"] {
        let mut changed = message.clone();
        changed.set_param(name, "\"changed\"");
        assert_eq!(changed.param(name), message.param(name).map(|_| "\"changed\""));
        assert_eq!(read(&changed.into_line()).kind(), message.kind());
    }
}

/// Fragments that are meaningful at any place.
const FRAGMENTS: [&[u8]; 16] = [
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

/// A number from the environment, or the default.
pub(crate) fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).expect("a file")).collect()
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.usize(..=bytes.len());
    let end = rng.usize(at..=bytes.len());
    match rng.usize(..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 => {
            let from = rng.usize(..=other.len());
            bytes.splice(at..end, other[from..].iter().copied());
        }
        _ => {
            let fragment = rng.choice(FRAGMENTS).expect("fragments");
            bytes.splice(at..at, fragment.iter().copied());
        }
    }
    bytes.truncate(4096);
}

fn run(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    assert!(!corpus.is_empty());
    corpus.iter().for_each(|bytes| target(bytes));
    let mut rng = Rng::with_seed(env_number("BRIDGE_FUZZ_SEED", 0));
    for _ in 0..env_number("BRIDGE_FUZZ_RUNS", 50_000) {
        let mut bytes = rng.choice(&corpus).expect("a corpus").clone();
        for _ in 0..rng.usize(1..=4) {
            let other = rng.choice(&corpus).expect("a corpus");
            mutate(&mut rng, &mut bytes, other);
        }
        let outcome = std::panic::catch_unwind(|| target(&bytes));
        assert!(outcome.is_ok(), "{name} fails on \"{}\"", bytes.escape_ascii());
    }
}

#[test]
fn framing_properties_hold_for_mutated_inputs() {
    run("framing", framing);
}

#[test]
fn envelope_properties_hold_for_mutated_inputs() {
    run("envelope", envelope);
}

#[test]
fn unreadable_line_properties_hold_for_mutated_inputs() {
    run("envelope", unreadable_line);
}

#[test]
fn event_id_properties_hold_for_mutated_inputs() {
    run("event_id", event_id);
}
