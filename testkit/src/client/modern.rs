//! The client side of MCP in the protocol of 2026-07-28: no session, `_meta` in each request, and
//! headers that mirror it.

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};

use super::{Answer, Client, ClientError, EventStream};

pub const MODERN_PROTOCOL: &str = "2026-07-28";

const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const MCP_METHOD: HeaderName = HeaderName::from_static("mcp-method");
const MCP_NAME: HeaderName = HeaderName::from_static("mcp-name");

/// A client of 2026-07-28 with a sign-in.
#[derive(Debug)]
pub struct ModernClient {
    client: Client,
    /// The `_meta` of each request.
    meta: Map<String, Value>,
}

/// An answer, with the request that it answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub answer: Answer,
    pub request: Value,
}

impl Client {
    /// A client of 2026-07-28 that shares this one's registration and tokens, later ones too. It
    /// declares no capability.
    pub fn modern(&self) -> ModernClient {
        let mut client = ModernClient {
            client: self.another_session(),
            meta: Map::new(),
        };
        let client_info = json!({ "name": "testkit", "version": env!("CARGO_PKG_VERSION") });
        client.set("protocolVersion", json!(MODERN_PROTOCOL));
        client.set("clientInfo", client_info);
        client.set("clientCapabilities", json!({}));
        client
    }
}

impl ModernClient {
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Value) -> Self {
        self.set("clientCapabilities", capabilities);
        self
    }

    #[must_use]
    pub fn with_log_level(mut self, level: &str) -> Self {
        self.set("logLevel", json!(level));
        self
    }

    #[must_use]
    pub fn with_progress_token(mut self, token: impl Into<Value>) -> Self {
        self.meta.insert("progressToken".to_owned(), token.into());
        self
    }

    /// The client without the protocol.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A request with a new id.
    pub fn message(&self, method: &str, mut params: Value) -> Value {
        params["_meta"] = Value::Object(self.meta.clone());
        json!({ "jsonrpc": "2.0", "id": self.client.new_id(), "method": method, "params": params })
    }

    /// The call of a tool, with a new id.
    pub fn tool_call(&self, name: &str, arguments: &Value) -> Value {
        self.message("tools/call", json!({ "name": name, "arguments": arguments }))
    }

    /// The retry of a request whose result asks for input, with a new id.
    pub fn retry_message(&self, reply: &Reply, answers: Value) -> Value {
        let method = reply.request["method"].as_str().unwrap_or_default();
        let mut params = reply.request["params"].clone();
        params["inputResponses"] = answers;
        params["requestState"] = reply.result()["requestState"].clone();
        self.message(method, params)
    }

    /// The headers that mirror a message. A name that cannot be a header value is left out.
    pub fn headers(&self, message: &Value) -> HeaderMap {
        let params = &message["params"];
        let name = [&params["name"], &params["uri"], &params["taskId"]];
        let mut headers = self.client.headers();
        for (header, value) in [
            (
                PROTOCOL_VERSION,
                params["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str(),
            ),
            (MCP_METHOD, message["method"].as_str()),
            (MCP_NAME, name.into_iter().find_map(Value::as_str)),
        ] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(header, value);
            }
        }
        headers
    }

    /// Sends a message with its headers. A stream is read to its end.
    pub async fn send(&self, message: Value) -> Result<Reply, ClientError> {
        self.send_with(self.headers(&message), message).await
    }

    /// Sends a message with exactly these headers.
    pub async fn send_with(&self, headers: HeaderMap, request: Value) -> Result<Reply, ClientError> {
        let answer = self.client.raw(Method::POST, headers, request.to_string()).await?;
        Ok(Reply { answer, request })
    }

    /// Sends a message whose answer is a stream, to be read event by event. Dropping the stream
    /// closes its connection.
    pub async fn stream(&self, message: &Value) -> Result<EventStream, ClientError> {
        let (headers, body) = (self.headers(message), message.to_string());
        self.client.raw_for_stream(headers, body).await
    }

    pub async fn request(&self, method: &str, params: Value) -> Result<Reply, ClientError> {
        self.send(self.message(method, params)).await
    }

    pub async fn call_tool(&self, name: &str, arguments: Value) -> Result<Reply, ClientError> {
        self.send(self.tool_call(name, &arguments)).await
    }

    pub async fn retry(&self, reply: &Reply, answers: Value) -> Result<Reply, ClientError> {
        self.send(self.retry_message(reply, answers)).await
    }

    fn set(&mut self, name: &str, value: Value) {
        self.meta.insert(format!("io.modelcontextprotocol/{name}"), value);
    }
}

impl Reply {
    pub fn status(&self) -> u16 {
        self.answer.status.as_u16()
    }

    /// The response with the id of the request; `null` if there is none.
    pub fn response(&self) -> &Value {
        static NULL: LazyLock<Value> = LazyLock::new(Value::default);
        self.answer.response_to(&self.request["id"]).unwrap_or(&NULL)
    }

    /// The messages before the response.
    pub fn notifications(&self) -> Vec<&Value> {
        let messages = self.answer.messages.iter();
        messages.filter(|message| message.get("method").is_some()).collect()
    }

    /// The result. Panics if there is none.
    #[track_caller]
    pub fn result(&self) -> &Value {
        let result = self.response().get("result");
        result.unwrap_or_else(|| panic!("no result of {}: {self}", self.request))
    }

    /// The first text of a complete result of a tool. Panics if there is none.
    #[track_caller]
    pub fn text(&self) -> &str {
        let result = self.result();
        assert_eq!(result["resultType"], "complete", "{result}");
        let text = result["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("no text in {result}"))
    }

    /// The JSON in that text.
    #[track_caller]
    pub fn json(&self) -> Value {
        let text = self.text();
        serde_json::from_str(text).unwrap_or_else(|_| panic!("{text} is not JSON"))
    }

    /// The questions of a result that asks for input, by key. Panics if it does not.
    #[track_caller]
    pub fn questions(&self) -> &Map<String, Value> {
        let result = self.result();
        assert_eq!(
            (self.status(), &result["resultType"]),
            (200, &json!("input_required")),
            "{result}"
        );
        let questions = result["inputRequests"].as_object();
        questions.unwrap_or_else(|| panic!("no questions in {result}"))
    }

    /// The status and the code of an error. Panics if it is none.
    #[track_caller]
    pub fn error(&self) -> (u16, i64) {
        let code = self.response()["error"]["code"].as_i64();
        (
            self.status(),
            code.unwrap_or_else(|| panic!("no error with the id of {}: {self}", self.request)),
        )
    }

    /// The `data` of an error.
    pub fn data(&self) -> &Value {
        &self.response()["error"]["data"]
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.answer.status, self.answer.text())
    }
}
