//! The client side of MCP over Streamable HTTP, in the protocol of 2025-11-25.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Answer, Client, ClientError, EventStream};

pub(super) const PROTOCOL: &str = "2025-11-25";
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// More pages of tools than any server has.
const MAX_PAGES: usize = 100;

/// The time limit of a GET stream: longer than any test.
const STREAM_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// The answer to a message, a stream before it is read.
pub enum Posted {
    Answer(Box<Answer>),
    Stream(EventStream),
}

impl Client {
    /// Opens a session, or initializes the present one again: stores the session id and the
    /// protocol version, and returns the result.
    pub async fn initialize(&self) -> Result<Value, ClientError> {
        self.initialize_as(PROTOCOL).await
    }

    /// The same as a client of another protocol version.
    pub async fn initialize_as(&self, protocol: &str) -> Result<Value, ClientError> {
        let id = self.new_id();
        let answer = self.post(Self::initialize_message(&id, protocol)).await?;
        // The answer to a repeated `initialize` on a known id may come without one.
        let session = answer.header(SESSION_ID.as_str()).map(str::to_owned);
        let result = result_of(answer, &id)?;
        let mut state = self.session();
        state.id = session.or(state.id.take());
        state.protocol_version = result["protocolVersion"].as_str().map(str::to_owned);
        Ok(result)
    }

    /// Completes the handshake with `notifications/initialized`; expects 202.
    pub async fn initialized(&self) -> Result<(), ClientError> {
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let answer = self.post(message.to_string()).await?;
        answer.expect_status(StatusCode::ACCEPTED).map(drop)
    }

    pub async fn list_tools(&self) -> Result<Vec<Value>, ClientError> {
        let mut tools = Vec::new();
        let mut params = json!({});
        for _ in 0..MAX_PAGES {
            let result = self.call("tools/list", params).await?;
            tools.extend(result["tools"].as_array().cloned().unwrap_or_default());
            let Some(cursor) = result["nextCursor"].as_str() else {
                return Ok(tools);
            };
            params = json!({ "cursor": cursor });
        }
        Err(ClientError::Unexpected(format!("more than {MAX_PAGES} pages of tools")))
    }

    /// Calls a tool and returns its result. A result with `isError` is a result.
    pub async fn call_tool(&self, name: &str, arguments: Value) -> Result<Value, ClientError> {
        self.call("tools/call", json!({ "name": name, "arguments": arguments }))
            .await
    }

    /// Ends the session and forgets its id; expects 200, 202 or 204.
    pub async fn delete(&self) -> Result<(), ClientError> {
        let answer = self.raw(Method::DELETE, self.headers(), Bytes::new()).await?;
        if ![StatusCode::ACCEPTED, StatusCode::NO_CONTENT].contains(&answer.status) {
            answer.expect_status(StatusCode::OK)?;
        }
        self.set_session_id(None);
        Ok(())
    }

    pub async fn listen(&self, last_event_id: Option<&str>) -> Result<EventStream, ClientError> {
        let mut headers = self.headers();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_event_id {
            let invalid = |_| ClientError::Unexpected(format!("{id:?} cannot be a header value"));
            headers.insert(LAST_EVENT_ID, HeaderValue::from_str(id).map_err(invalid)?);
        }
        open(self.http.get(self.mcp_url.clone()).headers(headers))
            .await?
            .into_stream()
    }

    /// Posts a message whose answer is a stream, to be read event by event. Dropping the stream
    /// closes its connection.
    pub async fn post_for_stream(&self, message: impl Into<Bytes>) -> Result<EventStream, ClientError> {
        self.post_and_read(message).await?.into_stream()
    }

    /// Posts a message; if the answer is a stream, it can be read event by event.
    pub async fn post_and_read(&self, message: impl Into<Bytes>) -> Result<Posted, ClientError> {
        let request = self.http.post(self.mcp_url.clone()).headers(self.headers());
        open(request.body(message.into())).await
    }

    /// As [`post_for_stream`](Self::post_for_stream), with exactly these headers.
    pub async fn raw_for_stream(
        &self,
        headers: HeaderMap,
        message: impl Into<Bytes>,
    ) -> Result<EventStream, ClientError> {
        let request = self.http.post(self.mcp_url.clone()).headers(headers);
        open(request.body(message.into())).await?.into_stream()
    }

    /// Sends a JSON-RPC request with a new id; returns the answer, whatever it is, and the id.
    pub async fn request(&self, method: &str, params: Value) -> Result<(Answer, Value), ClientError> {
        let id = self.new_id();
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        Ok((self.post(message.to_string()).await?, id))
    }

    /// Posts a message unchanged, with the headers of [`headers`](Self::headers).
    pub async fn post(&self, message: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.raw(Method::POST, self.headers(), message).await
    }

    /// Sends a request to the MCP URL with exactly these headers and this body. A stream is read to
    /// its end.
    pub async fn raw(&self, method: Method, headers: HeaderMap, body: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.send(method, &self.mcp_url, headers, body.into()).await
    }

    /// The present headers of the client: media types, bearer, session id, protocol version. A
    /// token or an id that cannot be a header value is left out.
    pub fn headers(&self) -> HeaderMap {
        let mut headers = basic_headers();
        let session = self.session().clone();
        let bearer = self.access_token().map(|token| format!("Bearer {token}"));
        let optional = [
            (AUTHORIZATION, bearer),
            (SESSION_ID, session.id),
            (PROTOCOL_VERSION, session.protocol_version),
        ];
        for (name, value) in optional {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                headers.insert(name, value);
            }
        }
        headers
    }

    pub(super) fn initialize_message(id: &Value, protocol: &str) -> String {
        let client_info = json!({ "name": "testkit", "version": env!("CARGO_PKG_VERSION") });
        let capabilities = json!({ "elicitation": {} });
        let params = json!({ "protocolVersion": protocol, "capabilities": capabilities, "clientInfo": client_info });
        json!({ "jsonrpc": "2.0", "id": id, "method": "initialize", "params": params }).to_string()
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, ClientError> {
        let (answer, id) = self.request(method, params).await?;
        result_of(answer, &id)
    }

    pub(super) fn new_id(&self) -> Value {
        json!(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

async fn open(request: RequestBuilder) -> Result<Posted, ClientError> {
    let response = request.timeout(STREAM_TIMEOUT).send().await;
    let response = response.map_err(ClientError::Transport)?;
    let content_type = response.headers().get(CONTENT_TYPE);
    let is_stream = content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"));
    if response.status() == StatusCode::OK && is_stream {
        return Ok(Posted::Stream(EventStream::new(response)));
    }
    Ok(Posted::Answer(Box::new(Answer::read(response).await?)))
}

impl Posted {
    fn into_stream(self) -> Result<EventStream, ClientError> {
        match self {
            Self::Stream(stream) => Ok(stream),
            Self::Answer(answer) => {
                let answer = answer.expect_status(StatusCode::OK)?;
                Err(ClientError::Unexpected(format!("a stream expected: {}", answer.text())))
            }
        }
    }
}

pub(super) fn basic_headers() -> HeaderMap {
    HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ACCEPT, HeaderValue::from_static("application/json, text/event-stream")),
    ])
}

fn result_of(answer: Answer, id: &Value) -> Result<Value, ClientError> {
    let answer = answer.expect_status(StatusCode::OK)?;
    let Some(response) = answer.response_to(id) else {
        return Err(ClientError::Unexpected(format!("no response with the id {id}")));
    };
    if let Some(error) = response.get("error") {
        return Err(ClientError::Rpc {
            code: error["code"].as_i64().unwrap_or_default(),
            message: error["message"].as_str().unwrap_or_default().to_owned(),
        });
    }
    let result = response.get("result").cloned();
    result.ok_or_else(|| ClientError::unexpected("a response without result and error"))
}
