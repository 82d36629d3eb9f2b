//! Clients of 2026-07-28 in front of a server of 2025-11-25.

mod announcements;
mod errors;
mod modern_server;
mod question_limits;
mod questions;
mod requests;

use std::{fmt, sync::Arc, time::Duration};

use bridge::{Config, Destination, Link, StateSealer};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::harness::{Bridge, Kind, Reply, Server, send};

const VERSION: &str = "2026-07-28";
/// What the server says in its handshake.
const INITIALIZED: &str = r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"prompts":{},"logging":{}},"serverInfo":{"name":"s","version":"1"},"instructions":"i"}"#;

/// Binds to its principal and detects changes, like an AEAD.
pub(crate) struct TestSealer;

impl fmt::Debug for TestSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestSealer")
    }
}

impl StateSealer for TestSealer {
    fn seal(&self, principal: &str, plain: &[u8], _life: Duration) -> Vec<u8> {
        let sum: u64 = principal
            .bytes()
            .chain(plain.iter().copied())
            .fold(7, |sum, byte| sum.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte));
        [&sum.to_be_bytes()[..], plain].concat()
    }

    fn open(&self, principal: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (_, plain) = sealed.split_first_chunk::<8>()?;
        (self.seal(principal, plain, Duration::ZERO) == sealed).then(|| plain.to_vec())
    }
}

/// A request of a client.
#[derive(Clone)]
pub(crate) struct ModernRequest {
    pub(crate) id: Value,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) meta: Value,
    /// Replaces or adds headers; `None` removes one.
    pub(crate) headers: Vec<(&'static str, Option<String>)>,
}

pub(crate) fn config() -> Config {
    Config {
        state_sealer: Some(Arc::new(TestSealer)),
        ..Config::default()
    }
}

/// A request with these parameters, of a client with these capabilities.
#[expect(clippy::needless_pass_by_value, reason = "the values are literals")]
pub(crate) fn request(id: impl Into<Value>, method: &str, params: Value, capabilities: Value) -> ModernRequest {
    ModernRequest {
        id: id.into(),
        method: method.to_owned(),
        params,
        meta: json!({
            "io.modelcontextprotocol/protocolVersion": VERSION,
            "io.modelcontextprotocol/clientCapabilities": capabilities,
            "io.modelcontextprotocol/clientInfo": { "name": "c", "version": "1" },
        }),
        headers: Vec::new(),
    }
}

/// A call of a tool by a client that answers forms.
pub(crate) fn call(id: impl Into<Value>, tool: &str) -> ModernRequest {
    let params = json!({ "name": tool, "arguments": { "a": 1 } });
    request(id, "tools/call", params, json!({ "elicitation": {} }))
}

impl ModernRequest {
    pub(crate) fn with_meta(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.meta[name] = value.into();
        self
    }

    pub(crate) fn with_param(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params[name] = value.into();
        self
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.push((name, value.map(str::to_owned)));
        self
    }

    pub(crate) fn http(&self) -> Request<Bytes> {
        let mut params = self.params.clone();
        params["_meta"] = self.meta.clone();
        let body = json!({ "jsonrpc": "2.0", "id": self.id, "method": self.method, "params": params });
        let mut request = Request::post("/mcp")
            .header("mcp-protocol-version", VERSION)
            .header("mcp-method", &self.method)
            .body(Bytes::from(body.to_string()))
            .expect("a request");
        let named = ["name", "uri", "taskId"].map(|member| self.params[member].as_str());
        if let Some(name) = named.into_iter().flatten().next() {
            request
                .headers_mut()
                .insert("mcp-name", HeaderValue::from_str(name).expect("a value"));
        }
        for (name, value) in &self.headers {
            let name = HeaderName::from_static(name);
            request.headers_mut().remove(&name);
            if let Some(value) = value {
                let value = HeaderValue::from_str(value).expect("a value");
                request.headers_mut().insert(name, value);
            }
        }
        request
    }
}

/// A conversation of modern clients with one attached server, whose handshake is done.
pub(crate) async fn bridge() -> (Arc<Bridge>, Server) {
    bridge_with(config()).await
}

pub(crate) async fn bridge_with(config: Config) -> (Arc<Bridge>, Server) {
    let mut first = call(0, "t").http();
    let destination = bridge::route(&mut first, "grant", &config);
    assert!(matches!(destination, Destination::Implicit { .. }));
    let snapshot = bridge::initial_snapshot(&first).expect("it makes a session");
    let (near, far) = tokio::io::duplex(1 << 20);
    let mut server = Server::new(far, &config);
    let (bridge, ()) = tokio::join!(Bridge::connect(near, config, Some(&snapshot)), handshake(&mut server));
    (Arc::new(bridge.expect("a server")), server)
}

/// The server's side of the handshake.
pub(crate) async fn handshake(server: &mut Server) {
    let (id, line) = server.request().await;
    assert!(line.contains(r#""method":"initialize""#), "{line}");
    server.result(id, INITIALIZED).await;
}

/// Attaches another server.
pub(crate) async fn rotate(bridge: &Bridge, number: u64) -> (Link, Server) {
    bridge.rotate(number, handshake).await
}

/// Sends a request without a session id.
pub(crate) async fn post(bridge: &Bridge, config: &Config, request: &ModernRequest) -> Reply {
    let mut request = request.http();
    let route = bridge::route(&mut request, "grant", config);
    match route {
        Destination::Implicit { .. } | Destination::Tagged { .. } => send(bridge, request).await,
        Destination::Reply(response) => Reply::of(Kind::Answer, response),
        Destination::Open | Destination::LastInitialize { .. } => panic!("not a request of this era"),
    }
}

/// As [`post`], on a task of its own.
pub(crate) fn start(bridge: &Arc<Bridge>, request: ModernRequest) -> JoinHandle<Reply> {
    let bridge = Arc::clone(bridge);
    TaskTracker::new().spawn(async move { post(&bridge, &config(), &request).await })
}

/// Answers the request for the tools, which comes before the first call.
pub(crate) async fn list_tools(server: &mut Server, tools: &str) {
    assert!(server.line().await.contains("notifications/initialized"));
    let (id, line) = server.request().await;
    assert!(line.contains("tools/list"), "{line}");
    server.result(id, &format!(r#"{{"tools":[{tools}]}}"#)).await;
}

/// The body of a JSON answer.
pub(crate) async fn json_of(reply: JoinHandle<Reply>) -> Value {
    reply.await.expect("no panic").error().await
}

/// A question of a server with an id of its own.
pub(crate) async fn ask(server: &mut Server, id: u64, message: &str, key: Option<&str>) {
    let mut params = json!({ "message": message, "requestedSchema": { "type": "object", "properties": {} } });
    if let Some(key) = key {
        params["_meta"] = json!({ "forgejo-mcp-broker/input-key": key });
    }
    let question = json!({ "jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": params });
    server.write(&question.to_string()).await;
}

/// Parks the first call of a conversation on a question with the id 5: the server's id of the call,
/// and what the client gets.
pub(crate) async fn park(bridge: &Arc<Bridge>, server: &mut Server, first: &ModernRequest) -> (u64, Value) {
    let reply = start(bridge, first.clone());
    list_tools(server, "").await;
    let (id, _) = server.request().await;
    ask(server, 5, "?", None).await;
    (id, json_of(reply).await)
}

/// The retry of a request with answers.
pub(crate) fn retry(request: &ModernRequest, id: impl Into<Value>, asked: &Value, responses: Value) -> ModernRequest {
    let mut retry = request.clone().with_param("inputResponses", responses);
    retry.id = id.into();
    retry.with_param("requestState", asked["result"]["requestState"].clone())
}

/// An answer that accepts.
pub(crate) fn accept(text: &str) -> Value {
    json!({ "action": "accept", "content": { "text": text } })
}
