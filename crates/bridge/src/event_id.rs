//! Event ids: what a client gives back in `Last-Event-ID` to go on with a stream (MCP 2025-11-25, "Resumability and Redelivery").
//!
//! An id names the bridge that made it, the stream, the place on the stream, and the requests that the stream answers. The
//! requests are in it so that a client can be told that its answer is lost even by a bridge that has never seen the stream, such as
//! the one of the next server. Ids are no secret and no permission: who may ask is decided by whoever hands the exchange over.
//!
//! There is one spelling for each id, in ASCII, so that it passes through any header. What is not one is nobody's.

use std::fmt;

use crate::id::Id;

/// The longest list of requests that an id carries, in bytes of their texts. The requests beyond it are left out.
const MAX_ASKED: usize = 1024;

/// A place on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    /// The bridge that the stream is of.
    pub(crate) epoch: u64,
    /// The stream.
    pub(crate) stream: u64,
    /// The place: this event and all before it have been read.
    pub(crate) place: u64,
    /// The requests that the stream answers; none for a stream that a GET has opened.
    pub(crate) asked: Asked,
}

/// The requests that a stream answers, by the ids that their client gave them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked(Box<str>);

impl Asked {
    /// The requests with these ids.
    pub(crate) fn new<'i>(ids: impl IntoIterator<Item = &'i Id>) -> Self {
        let mut text = String::new();
        for id in ids {
            if text.len() + 2 * id.raw().len() > 2 * MAX_ASKED {
                break;
            }
            text.push('-');
            for byte in id.raw().bytes() {
                for digit in [byte >> 4, byte & 15] {
                    text.extend(char::from_digit(digit.into(), 16));
                }
            }
        }
        Self(text.into())
    }

    /// The ids, as their client wrote them.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.0.split('-').skip(1).filter_map(decode).collect()
    }
}

impl EventId {
    /// Reads an id; `None` if no bridge has written this.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, '-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (epoch, stream, place) = (number()?, number()?, number()?);
        let ids: Vec<Id> = match parts.next() {
            Some(rest) => rest.split('-').map(decode).collect::<Option<_>>()?,
            None => Vec::new(),
        };
        let read = Self {
            epoch,
            stream,
            place,
            asked: Asked::new(&ids),
        };
        // Other spellings of the same (a leading zero, a sign, capitals) were not written by a bridge.
        (read.to_string() == text).then_some(read)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            epoch,
            stream,
            place,
            asked,
        } = self;
        write!(f, "{epoch:x}-{stream:x}-{place:x}{}", asked.0)
    }
}

fn decode(part: &str) -> Option<Id> {
    let digits: Option<Vec<u8>> = part
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| digit.try_into().ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    let bytes = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let raw = String::from_utf8(bytes).ok()?;
    // What an id holds is put into a message, so it has to be one JSON value and nothing else.
    let one: &serde_json::value::RawValue = serde_json::from_str(&raw).ok()?;
    Id::parse(one.get()).filter(|id| id.raw() == raw)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(raw: &str) -> Id {
        Id::parse(raw).expect("an id")
    }

    #[test]
    fn an_id_names_its_stream_and_its_requests() {
        let ids = [id("7"), id("\"a-\\u00e9\"")];
        let event = EventId {
            epoch: 0xbeef,
            stream: 3,
            place: 16,
            asked: Asked::new(&ids),
        };
        let text = event.to_string();
        assert_eq!(text, "beef-3-10-37-22612d5c753030653922");
        let read = EventId::parse(&text).expect("an id");
        assert_eq!(read, event);
        assert_eq!(read.asked.ids(), ids);
        let listener = EventId::parse("0-0-0").expect("an id");
        assert!(listener.asked.ids().is_empty());
    }

    #[test]
    fn what_no_bridge_has_written_is_no_id() {
        for text in [
            "",
            "-",
            "1",
            "1-2",
            "1-2-",
            "1-2-3-",
            "1-2-3-4",
            "1-2-3-zz",
            "01-2-3",
            "+1-2-3",
            "A-2-3",
            "1-2-3-7B",
            "1-2-3-7b7d",
            "1-2-3-6e756c6c",
            "1-2-3-31-",
            "1-2-3-3120",
            "10000000000000000-0-0",
            "1-2-3 ",
            "é-1-2",
            "1-2-3-31222c22",
        ] {
            assert_eq!(EventId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_id_does_not_grow_without_limit() {
        let ids: Vec<_> = (0..5000).map(|n| id(&n.to_string())).collect();
        let event = EventId {
            epoch: u64::MAX,
            stream: u64::MAX,
            place: u64::MAX,
            asked: Asked::new(&ids),
        };
        let text = event.to_string();
        assert!(text.len() < 4096, "{}", text.len());
        assert_eq!(EventId::parse(&text), Some(event));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_id_survives_its_text(
            [epoch, stream, place] in any::<[u64; 3]>(),
            numbers in prop::collection::vec(any::<i64>(), 0..4),
            texts in prop::collection::vec(".{0,20}", 0..4),
        ) {
            let ids: Vec<_> = numbers.iter().map(|n| id(&n.to_string()))
                .chain(texts.iter().map(|text| id(&crate::json::quote(text)))).collect();
            let event = EventId { epoch, stream, place, asked: Asked::new(&ids) };
            let read = EventId::parse(&event.to_string()).expect("an id");
            prop_assert_eq!(read.asked.ids(), ids);
            prop_assert_eq!(read, event);
        }

        #[test]
        fn there_is_one_spelling(text in "[0-9a-f-]{0,60}|[ -~]{0,30}") {
            if let Some(event) = EventId::parse(&text) {
                prop_assert_eq!(event.to_string(), text);
            }
        }
    }
}
