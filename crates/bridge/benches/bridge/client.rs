//! Clients of a bridge, of a bare pipe and of a bare HTTP server, and what they send.

use std::{
    future::Future,
    io::{Error, Result},
};

use bridge::{Config, Snapshot};
use bytes::Bytes;
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{ChildStdin, ChildStdout},
    task::JoinSet,
};

/// One client, which makes one round trip after the other.
pub(crate) trait Client: Send + 'static {
    fn round_trip(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// A client on the pipe to a child.
pub(crate) struct Piped {
    pub(crate) input: ChildStdin,
    pub(crate) output: BufReader<ChildStdout>,
    pub(crate) line: String,
}

/// A client of an HTTP server. It sends the same request again and again, so that next to nothing
/// of what is measured is its own work.
pub(crate) struct Http {
    sender: SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
}

/// The protocol of the clients.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// The state of a conversation of modern clients before its first server.
pub(crate) fn implicit_snapshot() -> Result<Snapshot> {
    let mut request = modern_call().map(Bytes::from);
    bridge::route(&mut request, "grant", &Config::default());
    bridge::initial_snapshot(&request).ok_or_else(|| Error::other("a call of a modern client makes no session"))
}

pub(crate) fn initialize() -> String {
    let params = r#"{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}"#;
    format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#)
}

fn call(id: u64) -> String {
    let params = r#"{"name":"test_echo","arguments":{"text":"a text of some forty characters to echo"}}"#;
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{params}}}"#)
}

/// A call as clients of 2026-07-28 send it.
fn modern_call() -> Request<String> {
    let meta = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}"#;
    let params = format!(
        r#"{{"name":"test_echo","arguments":{{"text":"a text of some forty characters to echo"}},"_meta":{meta}}}"#
    );
    let mut request = Request::new(format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#
    ));
    *request.method_mut() = Method::POST;
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "test_echo"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    request
}

/// A call over HTTP.
fn request(era: Era) -> Result<Request<Full<Bytes>>> {
    let request = match era {
        Era::Legacy => Request::post("/mcp").body(call(1)).map_err(Error::other)?,
        Era::Modern => modern_call(),
    };
    let mut request = request.map(Full::from);
    for (name, value) in [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ] {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(request)
}

pub(crate) async fn connect(
    connections: &mut JoinSet<hyper::Result<()>>,
    address: &str,
    era: Era,
    count: usize,
) -> Result<Vec<Http>> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(Error::other)?;
        connections.spawn(connection);
        clients.push(Http {
            sender,
            request: request(era)?,
        });
    }
    Ok(clients)
}

impl Piped {
    pub(crate) async fn exchange(&mut self, line: &str) -> Result<()> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        self.line.clear();
        match self.output.read_line(&mut self.line).await? {
            0 => Err(Error::other("the child has ended")),
            _ => Ok(()),
        }
    }
}

impl Client for Piped {
    async fn round_trip(&mut self) -> Result<()> {
        self.exchange(&call(1)).await
    }
}

impl Client for Http {
    async fn round_trip(&mut self) -> Result<()> {
        let response = self
            .sender
            .send_request(self.request.clone())
            .await
            .map_err(Error::other)?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(Error::other)?.to_bytes();
        if status == 200 && body.starts_with(b"{") && body.windows(8).any(|part| part == b"\"result\"") {
            Ok(())
        } else {
            Err(Error::other(format!("{status} {}", body.escape_ascii())))
        }
    }
}
