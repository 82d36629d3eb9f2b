//! The requests of the client that are in flight toward the server.
//!
//! Toward the server every request has a number of the bridge's own, never used twice, so that requests of two HTTP exchanges
//! cannot be mistaken for each other whatever their clients call them. An entry lives until it is taken: by
//! the server's answer, by its deadline, or by the end. A client that goes away leaves its entry behind: a disconnect is no
//! cancellation (MCP 2025-11-25, "Sending Messages to the Server", point 6).
//!
//! Invariant: `by_key` and `by_token` point at entries that exist.

use std::collections::HashMap;

use tokio::time::Instant;

use super::wishes::Wish;
use crate::{
    id::{Id, Key},
    streams::StreamId,
};

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What the client calls it.
    pub(crate) id: Id,
    /// Where its answer goes, if that is still there by then.
    pub(crate) stream: StreamId,
    /// The progress token that came with it.
    pub(crate) token: Option<Key>,
    /// The number of its line in the outbox.
    pub(crate) line: u64,
    /// When it is given up.
    pub(crate) deadline: Instant,
    /// Whether the client has cancelled it.
    pub(crate) cancelled: bool,
    /// What its success means for the record.
    pub(crate) wish: Option<Wish>,
}

/// The requests in flight, by the number that the server knows them by.
#[derive(Debug, Default)]
pub(crate) struct Table {
    entries: HashMap<u64, Entry>,
    by_key: HashMap<Key, u64>,
    by_token: HashMap<Key, u64>,
    last: u64,
}

impl Table {
    /// How many requests are in flight.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether a request of this id is in flight.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.by_key.contains_key(key)
    }

    /// Whether the request of this number is in flight.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.entries.contains_key(&number)
    }

    /// Whether the client has cancelled the request of this number.
    pub(crate) fn is_cancelled(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.cancelled)
    }

    /// What the success of the request of this number means for the record.
    pub(crate) fn take_wish(&mut self, number: u64) -> Option<Wish> {
        self.entries.get_mut(&number)?.wish.take()
    }

    /// The number that the next request gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// Adds a request, whose id must not be in flight, and gives it its number.
    pub(crate) fn insert(&mut self, entry: Entry) -> u64 {
        self.last += 1;
        let number = self.last;
        self.by_key.insert(entry.id.key().clone(), number);
        // Of two requests with one token, which MCP forbids, the newer gets the progress.
        self.by_token.extend(entry.token.clone().map(|token| (token, number)));
        self.entries.insert(number, entry);
        number
    }

    /// Takes a request out: it is no longer in flight.
    pub(crate) fn take(&mut self, number: u64) -> Option<Entry> {
        let entry = self.entries.remove(&number)?;
        self.by_key.remove(entry.id.key());
        if let Some(token) = &entry.token
            && self.by_token.get(token) == Some(&number)
        {
            self.by_token.remove(token);
        }
        Some(entry)
    }

    /// Takes all requests out, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<Entry> {
        let mut entries: Vec<_> = std::mem::take(&mut self.entries).into_iter().collect();
        entries.sort_unstable_by_key(|(number, _)| *number);
        *self = Self {
            last: self.last,
            ..Self::default()
        };
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    /// The request that its client calls by this id.
    pub(crate) fn by_id(&mut self, key: &Key) -> Option<(u64, &mut Entry)> {
        let number = *self.by_key.get(key)?;
        self.entries.get_mut(&number).map(|entry| (number, entry))
    }

    /// The stream of the request in flight that came with this progress token.
    pub(crate) fn stream_of_token(&self, token: &Key) -> Option<StreamId> {
        Some(self.entries.get(self.by_token.get(token)?)?.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, event_id::Asked, streams::Streams};

    fn id(raw: &str) -> Id {
        Id::parse(raw).expect("an id")
    }

    fn entry(raw: &str, stream: StreamId, token: Option<&str>) -> Entry {
        let token = token.map(|token| id(token).key().clone());
        Entry {
            id: id(raw),
            stream,
            token,
            line: 0,
            deadline: Instant::now(),
            cancelled: false,
            wish: None,
        }
    }

    fn three_streams() -> [StreamId; 3] {
        let mut streams = Streams::new(0, &Config::default());
        [(); 3].map(|()| streams.open_private(Asked::default(), 1).stream)
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let [stream, ..] = three_streams();
        let mut table = Table::default();
        assert_eq!(table.insert(entry("1", stream, None)), 1);
        assert!(table.take(1).is_some() && table.take(1).is_none());
        assert_eq!(table.insert(entry("1", stream, None)), 2);
        assert_eq!(table.take_all().len(), 1);
        assert_eq!(table.next_number(), 3);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_shared_token_belongs_to_the_newer_request_and_goes_with_it() {
        let [one, two, _] = three_streams();
        let mut table = Table::default();
        let first = table.insert(entry("1", one, Some("7")));
        let second = table.insert(entry("2", two, Some("7")));
        let token = id("7").key().clone();
        assert_eq!(table.stream_of_token(&token), Some(two));
        table.take(first);
        assert_eq!(table.stream_of_token(&token), Some(two));
        table.take(second);
        assert_eq!(table.stream_of_token(&token), None);
    }
}
