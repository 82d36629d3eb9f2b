//! A stream of server-sent events, read within limits (HTML, "Interpreting an event stream").
//!
//! Only what MCP uses is kept: the data of events of the type `message`, the last id, and the reconnection time. An event without
//! data is no event, but its id counts: MCP begins streams with such a one (2025-11-25, "Sending Messages to the Server").

use std::{collections::VecDeque, time::Duration};

use super::trouble::Trouble;

/// How long to wait before a stream is asked for again, unless the server says otherwise.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest wait that a server can ask for: with none, it would be asked without a pause.
const SHORTEST_RETRY: Duration = Duration::from_millis(500);
/// The longest wait that a server can ask for.
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// The longest id that is remembered, in bytes: it goes back in a header.
const LONGEST_ID: usize = 1024;

/// An open stream of events.
#[derive(Debug)]
pub(super) struct EventStream {
    response: reqwest::Response,
    parser: Parser,
}

/// Where a stream stands: what is needed to go on with it on another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The last id that was given.
    pub(super) last_id: Option<String>,
    /// How long to wait before coming back.
    pub(super) retry: Duration,
}

#[derive(Debug)]
struct Parser {
    /// How many bytes a line, and the data of an event, may have.
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// Whether the event under way is of another type than `message`.
    foreign: bool,
    after_return: bool,
    /// The id of the event under way; it counts once the event is complete.
    id: Option<String>,
    place: Place,
    ready: VecDeque<Vec<u8>>,
}

impl EventStream {
    /// The stream in a response. Events have `limit` bytes at most; `place` is where the stream before this one stood.
    pub(super) fn new(response: reqwest::Response, limit: usize, place: Place) -> Self {
        let parser = Parser::new(limit, place);
        Self { response, parser }
    }

    /// The data of the next event; `None` when the stream has ended. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`Trouble::BrokenOff`] and [`Trouble::TooLong`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Trouble> {
        loop {
            if let Some(data) = self.parser.ready.pop_front() {
                return Ok(Some(data));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.push(&chunk)?,
                Ok(None) => return Ok(None),
                Err(_) => return Err(Trouble::BrokenOff),
            }
        }
    }

    /// Where the stream stands.
    pub(super) fn place(&self) -> &Place {
        &self.parser.place
    }
}

impl Default for Place {
    fn default() -> Self {
        Self {
            last_id: None,
            retry: RETRY,
        }
    }
}

impl Parser {
    fn new(limit: usize, place: Place) -> Self {
        Self {
            limit,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            foreign: false,
            after_return: false,
            id: place.last_id.clone(),
            place,
            ready: VecDeque::new(),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => self.end_line()?,
                _ if self.line.len() >= self.limit.saturating_add(FIELD) => return Err(Trouble::TooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), Trouble> {
        let line = std::mem::take(&mut self.line);
        if line.is_empty() {
            self.end_event();
            return Ok(());
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (&line[..], &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.data.len() + value.len() > self.limit {
                    return Err(Trouble::TooLong);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.foreign = !matches!(value, b"" | b"message"),
            b"id" => {
                // One that cannot be sent back in a header is as good as none.
                let id = std::str::from_utf8(value).ok();
                let fits = |id: &&str| id.len() <= LONGEST_ID && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                self.id = id.filter(fits).filter(|id| !id.is_empty()).map(str::to_owned);
            }
            b"retry" => {
                let given = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                if let Some(given) = given {
                    self.place.retry = Duration::from_millis(given).clamp(SHORTEST_RETRY, LONGEST_RETRY);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        self.place.last_id.clone_from(&self.id);
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.foreign) && !data.is_empty() {
            self.ready.push_back(data);
        }
        self.has_data = false;
    }
}

/// The room for the name of a field before its value.
const FIELD: usize = "data: ".len();

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, size: usize) -> (Vec<String>, Place) {
        let mut parser = Parser::new(100, Place::default());
        for bytes in text.as_bytes().chunks(size) {
            parser.push(bytes).expect("within the limit");
        }
        let events = parser
            .ready
            .into_iter()
            .map(|data| String::from_utf8(data).expect("text"));
        (events.collect(), parser.place)
    }

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = ": keep-alive\n\nid: 1\nretry: 700\ndata:\n\ndata: a\ndata: b\n\nevent: ping\r\ndata: x\r\n\r\n\
                    event: message\rid: 3\rdata:{}\r\rid: 4\ndata: cut";
        for size in 1..text.len() {
            let (events, place) = parsed(text, size);
            assert_eq!(events, ["a\nb", "{}"], "in pieces of {size}");
            assert_eq!(
                place.last_id.as_deref(),
                Some("3"),
                "the id of an event that was cut off does not count"
            );
            assert_eq!(place.retry, Duration::from_millis(700));
        }
    }

    #[test]
    fn what_cannot_be_sent_back_is_no_id_and_nobody_has_to_wait_for_ever() {
        let (_, place) = parsed("id: 1\ndata: a\n\nid: \u{e9}\nretry: 999999999\ndata: b\n\n", 7);
        assert_eq!((place.last_id, place.retry), (None, LONGEST_RETRY));
        let (_, place) = parsed("retry: 0\ndata: a\n\n", 7);
        assert_eq!(place.retry, SHORTEST_RETRY, "and nobody is asked without a pause");
    }

    #[test]
    fn an_event_beyond_the_limit_is_refused() {
        let long = "x".repeat(60);
        for text in [format!("data: {long}{long}"), format!("data: {long}\ndata: {long}\n\n")] {
            let mut parser = Parser::new(100, Place::default());
            assert!(matches!(parser.push(text.as_bytes()), Err(Trouble::TooLong)));
        }
        let mut parser = Parser::new(100, Place::default());
        parser
            .push(format!("data: {}\n\n", "x".repeat(100)).as_bytes())
            .expect("at the limit");
        assert_eq!(parser.ready.len(), 1);
    }
}
