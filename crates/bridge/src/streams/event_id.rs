//! Event ids: the value of `Last-Event-ID` with which a client resumes a stream (MCP 2025-11-25,
//! "Resumability and Redelivery").
//!
//! An id names the instance of the conversation that made it, the stream, the position on the
//! stream, whether the event is the final one, and the requests that the stream answers. So a later
//! instance, which has never seen the stream, can tell the client at once that its response is
//! lost, and nothing is stored for an event. Ids are neither secret nor a permission: authorization
//! happens before an exchange reaches the conversation.
//!
//! Each id has exactly one spelling, in ASCII, so that it passes through any header.

use std::fmt;

use super::StreamId;
use crate::jsonrpc::Id;

/// The largest list of requests in an id, in bytes of their texts. Further requests are left out.
const MAX_REQUEST_BYTES: usize = 1024;
/// Follows the position of a final event.
const FINAL: char = '.';

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    pub(crate) epoch: u64,
    pub(crate) stream: StreamId,
    /// The client has this event and all before it.
    pub(crate) position: u64,
    /// The stream ends with this event, because each of its requests has its response.
    pub(crate) is_final: bool,
    /// The requests that the stream answers; none for the stream of a GET.
    pub(crate) requests: RequestIds,
}

/// The requests of a stream, by the ids that the client gave them, in the encoding of an event id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestIds(Box<str>);

impl RequestIds {
    pub(crate) fn new<'i>(ids: impl IntoIterator<Item = &'i Id>) -> Self {
        let mut text = String::new();
        for id in ids {
            if text.len() + 2 * id.raw().len() > 2 * MAX_REQUEST_BYTES {
                break;
            }
            text.push('-');
            text.extend(id.raw().bytes().map(|byte| format!("{byte:02x}")));
        }
        Self(text.into())
    }

    /// The ids in the client's spelling.
    pub(crate) fn ids(&self) -> Vec<Id> {
        self.0.split('-').skip(1).filter_map(decode).collect()
    }
}

impl EventId {
    /// Reads an id; `None` if no conversation can have written it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let number = |part| u64::from_str_radix(part, 16).ok();
        let mut parts = text.splitn(4, '-');
        let (epoch, stream) = (number(parts.next()?)?, StreamId(number(parts.next()?)?));
        let position = parts.next()?;
        let (position, is_final) = match position.strip_suffix(FINAL) {
            Some(position) => (position, true),
            None => (position, false),
        };
        let position = number(position)?;
        let ids: Vec<Id> = match parts.next() {
            Some(rest) => rest.split('-').map(decode).collect::<Option<_>>()?,
            None => Vec::new(),
        };
        let read = Self {
            epoch,
            stream,
            position,
            is_final,
            requests: RequestIds::new(&ids),
        };
        // Rejects other spellings, such as leading zeros, signs and capitals.
        (read.to_string() == text).then_some(read)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stream, requests) = (self.stream.0, &self.requests.0);
        write!(f, "{:x}-{stream:x}-{:x}", self.epoch, self.position)?;
        if self.is_final {
            write!(f, "{FINAL}")?;
        }
        f.write_str(requests)
    }
}

fn decode(part: &str) -> Option<Id> {
    // `EventId::parse` rejects other spellings of a byte, such as a single digit.
    let byte = |digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let bytes = part.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?;
    let raw = String::from_utf8(bytes).ok()?;
    // The id becomes part of a message, so it must be exactly one JSON value.
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
            stream: StreamId(3),
            position: 16,
            is_final: false,
            requests: RequestIds::new(&ids),
        };
        let text = event.to_string();
        assert_eq!(text, "beef-3-10-37-22612d5c753030653922");
        let read = EventId::parse(&text).expect("an id");
        assert_eq!(read, event);
        let last = EventId {
            is_final: true,
            ..event
        };
        assert_eq!(last.to_string(), "beef-3-10.-37-22612d5c753030653922");
        assert_eq!(EventId::parse(&last.to_string()), Some(last));
        assert_eq!(read.requests.ids(), ids);
        let listener = EventId::parse("0-0-0").expect("an id");
        assert!(listener.requests.ids().is_empty());
    }

    #[test]
    fn other_spellings_are_rejected() {
        for text in [
            "",
            "-",
            "1",
            "1-2",
            "1-2-",
            "1-2-3-",
            "1-2-.",
            "1-2-3..",
            "1-2.-3",
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
    fn an_id_has_a_maximum_length() {
        let ids: Vec<_> = (0..5000).map(|n| id(&n.to_string())).collect();
        let event = EventId {
            epoch: u64::MAX,
            stream: StreamId(u64::MAX),
            position: u64::MAX,
            is_final: true,
            requests: RequestIds::new(&ids),
        };
        let text = event.to_string();
        assert!(text.len() < 4096, "{}", text.len());
        assert_eq!(EventId::parse(&text), Some(event));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_id_roundtrips_through_its_text(
            [epoch, stream, position] in any::<[u64; 3]>(),
            is_final: bool,
            numbers in prop::collection::vec(any::<i64>(), 0..4),
            texts in prop::collection::vec(".{0,20}", 0..4),
        ) {
            let ids: Vec<_> = numbers.iter().map(|n| id(&n.to_string()))
                .chain(texts.iter().map(|text| id(&crate::jsonrpc::json::quote(text)))).collect();
            let event = EventId { epoch, stream: StreamId(stream), position, is_final, requests: RequestIds::new(&ids) };
            let read = EventId::parse(&event.to_string()).expect("an id");
            prop_assert_eq!(read.requests.ids(), ids);
            prop_assert_eq!(read, event);
        }

        #[test]
        fn each_id_has_one_spelling(text in "[0-9a-f.-]{0,60}|[ -~]{0,30}") {
            if let Some(event) = EventId::parse(&text) {
                prop_assert_eq!(event.to_string(), text);
            }
        }
    }
}
