//! Readers of response bodies, with limits: server-sent events (HTML, "Interpreting an event
//! stream"), and whole bodies.
//!
//! The reader of events keeps only the parts that MCP uses: the data of events of the type
//! `message`, the last id, and the reconnection time. An event without data is not delivered, but
//! its id counts: MCP begins streams with one (2025-11-25, "Sending Messages to the Server").

use std::{collections::VecDeque, time::Duration};

use super::error::HttpError;

/// The pause before a stream is resumed, unless the server sets another.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// The shortest pause that a server can set: with none, the client would poll in a loop.
const MIN_RETRY: Duration = Duration::from_millis(500);
/// The longest pause that a server can set.
const MAX_RETRY: Duration = Duration::from_secs(30);
/// The longest event id that is kept, in bytes: it is sent back in a header.
const MAX_EVENT_ID: usize = 1024;

/// The length of a field name before its value.
const FIELD_NAME: usize = "data: ".len();

#[derive(Debug)]
pub(super) struct SseReader {
    response: reqwest::Response,
    parser: SseParser,
}

/// The position in a stream, at which another connection can resume it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamPosition {
    pub(super) last_id: Option<String>,
    /// The pause before the stream is resumed.
    pub(super) retry: Duration,
}

#[derive(Debug, Default)]
struct SseParser {
    /// The longest line, and the longest data of an event, in bytes.
    limit: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The current event has another type than `message`.
    foreign: bool,
    after_return: bool,
    /// The id of the current event; it counts once the event is complete.
    id: Option<String>,
    position: StreamPosition,
    ready: VecDeque<Vec<u8>>,
}

impl SseReader {
    /// The stream of a response. Events have at most `limit` bytes; `position` is that of the
    /// stream which this one resumes.
    pub(super) fn new(response: reqwest::Response, limit: usize, position: StreamPosition) -> Self {
        let parser = SseParser::new(limit, position);
        Self { response, parser }
    }

    /// The data of the next event; `None` when the stream has ended. Cancel safe.
    ///
    /// # Errors
    ///
    /// [`HttpError::BrokenOff`] and [`HttpError::TooLong`].
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        loop {
            if let Some(data) = self.parser.ready.pop_front() {
                return Ok(Some(data));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.parser.push(&chunk)?,
                Ok(None) => return Ok(None),
                Err(_) => return Err(HttpError::BrokenOff),
            }
        }
    }

    pub(super) fn position(&self) -> &StreamPosition {
        &self.parser.position
    }
}

/// The whole body of a response.
///
/// # Errors
///
/// [`HttpError::BrokenOff`] and [`HttpError::TooLong`].
pub(super) async fn read_body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| HttpError::BrokenOff)? {
        if body.len() + chunk.len() > limit {
            return Err(HttpError::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

impl Default for StreamPosition {
    fn default() -> Self {
        Self {
            last_id: None,
            retry: DEFAULT_RETRY,
        }
    }
}

impl SseParser {
    fn new(limit: usize, position: StreamPosition) -> Self {
        Self {
            limit,
            id: position.last_id.clone(),
            position,
            ..Self::default()
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), HttpError> {
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => self.end_line()?,
                _ if self.line.len() >= self.limit.saturating_add(FIELD_NAME) => {
                    return Err(HttpError::TooLong);
                }
                _ => self.line.push(byte),
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), HttpError> {
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
                    return Err(HttpError::TooLong);
                }
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.foreign = !matches!(value, b"" | b"message"),
            b"id" => {
                // An id that cannot be sent back in a header is ignored.
                let id = std::str::from_utf8(value).ok();
                let fits = |id: &&str| id.len() <= MAX_EVENT_ID && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
                self.id = id.filter(fits).filter(|id| !id.is_empty()).map(str::to_owned);
            }
            b"retry" => {
                let given = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                if let Some(given) = given {
                    self.position.retry = Duration::from_millis(given).clamp(MIN_RETRY, MAX_RETRY);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self) {
        self.position.last_id.clone_from(&self.id);
        let data = std::mem::take(&mut self.data);
        if !std::mem::take(&mut self.foreign) && !data.is_empty() {
            self.ready.push_back(data);
        }
        self.has_data = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, size: usize) -> (Vec<String>, StreamPosition) {
        let mut parser = SseParser::new(100, StreamPosition::default());
        for bytes in text.as_bytes().chunks(size) {
            parser.push(bytes).expect("within the limit");
        }
        let events = parser
            .ready
            .into_iter()
            .map(|data| String::from_utf8(data).expect("text"));
        (events.collect(), parser.position)
    }

    #[test]
    fn events_are_complete_for_any_chunking() {
        let text = ": keep-alive\n\nid: 1\nretry: 700\ndata:\n\ndata: a\ndata: b\n\nevent: ping\r\ndata: x\r\n\r\n\
                    event: message\rid: 3\rdata:{}\r\rid: 4\ndata: cut";
        for size in 1..text.len() {
            let (events, position) = parsed(text, size);
            assert_eq!(events, ["a\nb", "{}"], "in pieces of {size}");
            assert_eq!(
                position.last_id.as_deref(),
                Some("3"),
                "the id of an incomplete event does not count"
            );
            assert_eq!(position.retry, Duration::from_millis(700));
        }
    }

    #[test]
    fn invalid_ids_are_ignored_and_retry_is_clamped() {
        let (_, position) = parsed("id: 1\ndata: a\n\nid: \u{e9}\nretry: 999999999\ndata: b\n\n", 7);
        assert_eq!((position.last_id, position.retry), (None, MAX_RETRY));
        let (_, position) = parsed("retry: 0\ndata: a\n\n", 7);
        assert_eq!(position.retry, MIN_RETRY, "polling always pauses");
    }

    #[test]
    fn event_beyond_the_limit_is_refused() {
        let long = "x".repeat(60);
        for text in [format!("data: {long}{long}"), format!("data: {long}\ndata: {long}\n\n")] {
            let mut parser = SseParser::new(100, StreamPosition::default());
            assert!(matches!(parser.push(text.as_bytes()), Err(HttpError::TooLong)));
        }
        let mut parser = SseParser::new(100, StreamPosition::default());
        parser
            .push(format!("data: {}\n\n", "x".repeat(100)).as_bytes())
            .expect("at the limit");
        assert_eq!(parser.ready.len(), 1);
    }
}
