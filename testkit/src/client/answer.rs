//! An HTTP answer with the JSON-RPC messages that it carries.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use serde_json::Value;

use super::{ClientError, Event, sse::Parser};

/// One answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body as it came.
    pub body: Bytes,
    /// The JSON values in it, in order: one of a JSON body, one for each event with data of a stream.
    pub messages: Vec<Value>,
}

impl Answer {
    pub(super) async fn read(response: reqwest::Response) -> Result<Self, ClientError> {
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(ClientError::Transport)?;
        let mut answer = Self {
            status,
            headers,
            body,
            messages: Vec::new(),
        };
        answer.messages = answer.parse()?;
        Ok(answer)
    }

    /// A header's value as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The JSON body; `null` if there is none.
    pub fn json(&self) -> Value {
        self.messages.first().cloned().unwrap_or_default()
    }

    /// Whether the answer came as a stream of events.
    pub fn is_stream(&self) -> bool {
        self.is("text/event-stream")
    }

    /// The events of a stream, those without data too.
    pub fn events(&self) -> Vec<Event> {
        if self.is_stream() {
            Parser::default().push(&self.body)
        } else {
            Vec::new()
        }
    }

    /// The JSON-RPC response to the request with this id.
    pub fn response_to(&self, id: &Value) -> Option<&Value> {
        let answers = |message: &&Value| message.get("method").is_none() && message.get("id") == Some(id);
        self.messages.iter().find(answers)
    }

    /// The answer itself if its status is `wanted`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if it is another.
    pub fn expect_status(self, wanted: StatusCode) -> Result<Self, ClientError> {
        const LONGEST: usize = 300;
        if self.status == wanted {
            return Ok(self);
        }
        let body = self.text().chars().take(LONGEST).collect();
        Err(ClientError::Refused {
            status: self.status,
            body,
        })
    }

    fn parse(&self) -> Result<Vec<Value>, ClientError> {
        let texts = if self.is_stream() {
            self.events()
                .into_iter()
                .map(|event| event.data)
                .filter(|data| !data.is_empty())
                .collect()
        } else if self.is("application/json") && !self.body.is_empty() {
            vec![self.text()]
        } else {
            Vec::new()
        };
        let parsed: Result<Vec<Value>, _> = texts.iter().map(|text| serde_json::from_str(text)).collect();
        parsed.map_err(|error| ClientError::Unexpected(format!("no JSON where there should be: {error}")))
    }

    fn is(&self, media_type: &str) -> bool {
        self.header(CONTENT_TYPE.as_str())
            .is_some_and(|value| value.split(';').next().is_some_and(|value| value.trim() == media_type))
    }
}
