//! The client's half of MCP over Streamable HTTP, in the protocol of 2025-11-25.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use serde_json::{Value, json};

use super::{Answer, Client, ClientError, EventStream, steps::Outcome};

const PROTOCOL: &str = "2025-11-25";
const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// More pages of tools than any server has.
const MOST_PAGES: usize = 100;

/// A stream may stay open for longer than any test runs.
const STREAM_LIFE: Duration = Duration::from_secs(24 * 3600);

impl Client {
    /// Opens a session, or initialises the present one again: keeps the session id and the protocol version, and gives the
    /// result.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`], [`ClientError::Rpc`], [`ClientError::Unexpected`]; so for all methods here.
    pub async fn initialize(&self) -> Result<Value, ClientError> {
        let initialize = async {
            let id = self.new_id();
            let answer = self.post(Self::initialize_message(&id)).await?;
            let result = result_of(&answer, &id)?;
            let version = result["protocolVersion"].as_str().unwrap_or_default().to_owned();
            let session = answer.header(SESSION_ID.as_str()).map(str::to_owned);
            let server = &result["serverInfo"]["name"];
            let detail = format!(
                "{server} speaks {version}, {}",
                if session.is_some() {
                    "session opened"
                } else {
                    "no session id"
                }
            );
            // Who is initialised again on a known id may be answered without one and keeps it.
            if session.is_some() {
                self.set_session_id(session.as_deref());
            }
            self.session().protocol_version = Some(version);
            Ok(Outcome::new(result, answer.status, detail))
        };
        self.steps.take("initialize", initialize).await
    }

    /// Says that the handshake is complete; expects 202.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn initialized(&self) -> Result<(), ClientError> {
        let initialized = async {
            let message = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
            let answer = self
                .post(message.to_string())
                .await?
                .expect_status(StatusCode::ACCEPTED)?;
            Ok(Outcome::new((), answer.status, "accepted"))
        };
        self.steps.take("initialized", initialized).await
    }

    /// Lists all tools, page by page.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn list_tools(&self) -> Result<Vec<Value>, ClientError> {
        let list = async {
            let mut tools = Vec::new();
            let mut params = json!({});
            for _ in 0..MOST_PAGES {
                let (answer, result) = self.call("tools/list", params).await?;
                tools.extend(result["tools"].as_array().cloned().unwrap_or_default());
                match result["nextCursor"].as_str() {
                    Some(cursor) => params = json!({ "cursor": cursor }),
                    None => {
                        let detail = format!("{} tools", tools.len());
                        return Ok(Outcome::new(tools, answer.status, detail));
                    }
                }
            }
            Err(ClientError::Unexpected(format!(
                "more than {MOST_PAGES} pages of tools"
            )))
        };
        self.steps.take("tools/list", list).await
    }

    /// Calls a tool and gives its result. A result with `isError` is a result.
    ///
    /// # Errors
    ///
    /// As [`initialize`](Self::initialize).
    pub async fn call_tool(&self, name: &str, arguments: Value) -> Result<Value, ClientError> {
        let call = async {
            let params = json!({ "name": name, "arguments": arguments });
            let (answer, result) = self.call("tools/call", params).await?;
            let text = result["content"][0]["text"]
                .as_str()
                .unwrap_or("no text")
                .split_whitespace();
            let text: String = text.collect::<Vec<_>>().join(" ").chars().take(100).collect();
            Ok(Outcome::new(result, answer.status, format!("{name}: {text}")))
        };
        self.steps.take("tools/call", call).await
    }

    /// Ends the session and forgets its id.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] unless the answer is 200, 202 or 204.
    pub async fn delete(&self) -> Result<(), ClientError> {
        let delete = async {
            let answer = self.raw(Method::DELETE, self.headers(), Bytes::new()).await?;
            let ended = [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
            let answer = if ended.contains(&answer.status) {
                answer
            } else {
                answer.expect_status(StatusCode::OK)?
            };
            self.set_session_id(None);
            Ok(Outcome::new((), answer.status, "session ended"))
        };
        self.steps.take("delete", delete).await
    }

    /// Opens the GET stream of the session, from after `last_event_id` if there is one.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] unless the answer is a 200.
    pub async fn listen(&self, last_event_id: Option<&str>) -> Result<EventStream, ClientError> {
        let mut headers = self.headers();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(id) = last_event_id {
            headers.insert(LAST_EVENT_ID, header_value(id)?);
        }
        let request = self
            .http
            .get(self.mcp_url.clone())
            .headers(headers)
            .timeout(STREAM_LIFE);
        let response = request.send().await.map_err(ClientError::Transport)?;
        if response.status() == StatusCode::OK {
            return Ok(EventStream::new(response));
        }
        Err(match Answer::read(response).await?.expect_status(StatusCode::OK) {
            Err(refused) => refused,
            Ok(_) => ClientError::Unexpected("a status that changed".to_owned()),
        })
    }

    /// Sends a JSON-RPC request with a new id and gives the answer whatever it is, and the id.
    ///
    /// # Errors
    ///
    /// [`ClientError::Transport`], [`ClientError::Unexpected`] for an answer that is not what its type says.
    pub async fn request(&self, method: &str, params: Value) -> Result<(Answer, Value), ClientError> {
        let id = self.new_id();
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        Ok((self.post(message.to_string()).await?, id))
    }

    /// Posts a message as it is, with the headers of [`headers`](Self::headers).
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub async fn post(&self, message: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.raw(Method::POST, self.headers(), message).await
    }

    /// Sends a request to the MCP URL with these headers and this body and nothing else. An answer that streams is read to
    /// its end.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub async fn raw(&self, method: Method, headers: HeaderMap, body: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.send(method, &self.mcp_url, headers, body.into()).await
    }

    /// The headers that the client sends now: media types, bearer, session id, protocol version. A token or an id that
    /// cannot stand in a header is left out.
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

    pub(super) fn initialize_message(id: &Value) -> String {
        json!({
            "jsonrpc": "2.0",
            "id": id,
            "method": "initialize",
            "params": {
                "protocolVersion": PROTOCOL,
                "capabilities": {},
                "clientInfo": { "name": "testkit", "version": env!("CARGO_PKG_VERSION") },
            },
        })
        .to_string()
    }

    async fn call(&self, method: &str, params: Value) -> Result<(Answer, Value), ClientError> {
        let (answer, id) = self.request(method, params).await?;
        let result = result_of(&answer, &id)?;
        Ok((answer, result))
    }

    fn new_id(&self) -> Value {
        json!(self.next_id.fetch_add(1, Ordering::Relaxed))
    }
}

/// The headers of a client that knows nothing yet.
pub(super) fn basic_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers
}

fn result_of(answer: &Answer, id: &Value) -> Result<Value, ClientError> {
    let answer = answer.clone().expect_status(StatusCode::OK)?;
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
    result.ok_or_else(|| ClientError::Unexpected("a response without result and error".to_owned()))
}

fn header_value(text: &str) -> Result<HeaderValue, ClientError> {
    HeaderValue::from_str(text).map_err(|_| ClientError::Unexpected(format!("{text:?} cannot stand in a header")))
}
