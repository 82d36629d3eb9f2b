//! Server-sent events, as the HTML standard frames them (section 9.2.6, "Interpreting an event stream").
//!
//! One thing differs: an event with an empty `data` is handed on and not dropped, since MCP primes its streams with one.

use std::collections::VecDeque;

use super::ClientError;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its type; `None` means `message`.
    pub event: Option<String>,
    /// Its data, lines joined with newlines.
    pub data: String,
    /// The reconnection time that it sets, in milliseconds.
    pub retry: Option<u64>,
}

/// An open stream of events.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    parser: Parser,
    ready: VecDeque<Event>,
}

#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    event: Option<Event>,
}

impl EventStream {
    pub(super) fn new(response: reqwest::Response) -> Self {
        Self {
            response,
            parser: Parser::default(),
            ready: VecDeque::new(),
        }
    }

    /// Waits for the next event; `None` is the clean end of the stream. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// [`ClientError::Transport`] when the stream breaks.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.ready.extend(self.parser.push(&chunk)),
                Ok(None) => return Ok(None),
                Err(error) => return Err(ClientError::Transport(error)),
            }
        }
    }
}

impl Parser {
    /// Takes bytes and gives the events that they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\r' | b'\n' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        if line.is_empty() {
            return self.event.take().map(|mut event| {
                // Each line of data added a newline; the last one is not part of the data.
                event.data.pop();
                event
            });
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        if field.is_empty() {
            return None;
        }
        let event = self.event.get_or_insert_default();
        match field {
            "id" => event.id = Some(value.to_owned()),
            "event" => event.event = Some(value.to_owned()),
            "retry" => event.retry = value.parse().ok(),
            "data" => {
                event.data.push_str(value);
                event.data.push('\n');
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Parser};

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = ": keep-alive\n\nid: 1\ndata: a\ndata: b\n\nevent: ping\r\nretry: 1500\r\ndata:x\r\n\r\nid: 3\ndata:\n\ndata: cut";
        let expected = [
            Event {
                id: Some("1".into()),
                data: "a\nb".into(),
                ..Event::default()
            },
            Event {
                event: Some("ping".into()),
                retry: Some(1500),
                data: "x".into(),
                ..Event::default()
            },
            Event {
                id: Some("3".into()),
                ..Event::default()
            },
        ];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let events: Vec<Event> = text
                .as_bytes()
                .chunks(size)
                .flat_map(|bytes| parser.push(bytes))
                .collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }
}
