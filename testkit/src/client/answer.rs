//! An HTTP answer with the JSON-RPC messages in it.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{ClientError, Event, sse};

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// The JSON values in it, in order: one of a JSON body, one for each event with data of a
    /// stream.
    pub messages: Vec<Value>,
    events: Vec<Event>,
}

impl Answer {
    pub(super) async fn read(response: reqwest::Response) -> Result<Self, ClientError> {
        let mut answer = Self {
            status: response.status(),
            headers: response.headers().clone(),
            body: response.bytes().await.map_err(ClientError::Transport)?,
            messages: Vec::new(),
            events: Vec::new(),
        };
        if answer.is_stream() {
            answer.events = sse::events(answer.body.clone()).await?;
            let with_data = answer.events.iter().filter(|event| !event.data.is_empty());
            let messages = with_data.map(|event| parse(event.data.as_bytes()));
            answer.messages = messages.collect::<Result<_, _>>()?;
        } else if answer.is("application/json") && !answer.body.is_empty() {
            answer.messages.push(answer.parsed()?);
        }
        Ok(answer)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body; `null` if there is none.
    pub fn json(&self) -> Value {
        self.messages.first().cloned().unwrap_or_default()
    }

    pub fn is_stream(&self) -> bool {
        self.is("text/event-stream")
    }

    /// The events of a stream, those without data too.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    pub fn response_to(&self, id: &Value) -> Option<&Value> {
        let is_response = |message: &&Value| message.get("method").is_none() && message.get("id") == Some(id);
        self.messages.iter().find(is_response)
    }

    pub(super) fn expect_status(self, expected: StatusCode) -> Result<Self, ClientError> {
        const LONGEST: usize = 300;
        if self.status == expected {
            return Ok(self);
        }
        Err(ClientError::Refused {
            status: self.status,
            body: self.text().chars().take(LONGEST).collect(),
        })
    }

    pub(super) fn parsed<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        parse(&self.body)
    }

    fn is(&self, media_type: &str) -> bool {
        let value = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        value.split(';').next().is_some_and(|value| value.trim() == media_type)
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Unexpected(format!("JSON expected: {error}")))
}
